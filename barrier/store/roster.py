"""Which edges barriers wait for, as far as an operator decides it."""

from __future__ import annotations

from barrier.store.reading import Refused, Store
from fleet import paths


def evict(store: Store, edge: str) -> bool:
    """Barriers no longer wait for ``edge``. False where it was not on the roster, but lives; Refused: unknown."""
    fleet = store.fleet()
    if edge not in fleet.roster:
        if edge in fleet.alive:
            return False
        raise Refused("unknown", f"there is no edge {edge!r}", edges=sorted({*fleet.roster, *fleet.alive}))
    store.zk.delete(paths.rostered(edge))
    return True
