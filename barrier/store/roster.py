"""Which edges barriers wait for, as far as an operator decides it."""

from __future__ import annotations

from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.zk import Conflict, Delete, ZooKeeperTrouble


def evict(store: Store, edge: str, by: By) -> bool:
    """Barriers no longer wait for ``edge``. False where it was not on the roster, but lives; Refused: unknown."""
    for _ in range(TRIES):
        fleet = store.fleet()
        if edge not in fleet.roster:
            if edge in fleet.alive:
                return False
            raise Refused("unknown", f"there is no edge {edge!r}", edges=sorted({*fleet.roster, *fleet.alive}))
        try:
            audit.commit(store.zk, [Delete(paths.rostered(edge))], by, "evict", f"evicts {edge}", edge=edge)
        except Conflict:
            continue
        return True
    raise ZooKeeperTrouble(f"{edge} keeps joining and leaving under this request: try again")
