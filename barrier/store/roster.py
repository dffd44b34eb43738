"""Which edges barriers wait for, as far as an operator decides it."""

from __future__ import annotations

from collections.abc import Callable

from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.zk import Conflict, Create, Delete, Op, ZooKeeperTrouble


def leave(store: Store, edge: str, by: By) -> bool:
    """The edge's page turns red and it joins no more; barriers wait for it until it is evicted. False: it was so."""

    def wanted() -> Op | None:
        _known(store, edge)
        if store.zk.get(paths.leaving(edge), watch=False) is not None:
            return None
        store.zk.ensure(paths.LEAVING)
        return Create(paths.leaving(edge), b"")

    return _change(store, edge, by, "leave", f"lets {edge} leave", wanted)


def come_back(store: Store, edge: str, by: By) -> bool:
    """It may join again, and does so by itself where its agent runs. False: nobody had let it leave."""

    def wanted() -> Op | None:
        if store.zk.get(paths.leaving(edge), watch=False) is None:
            _known(store, edge)
            return None
        return Delete(paths.leaving(edge))

    return _change(store, edge, by, "return", f"takes {edge} back", wanted)


def evict(store: Store, edge: str, by: By) -> bool:
    """Barriers no longer wait for ``edge``. False where it was not on the roster, but lives; Refused: unknown."""

    def wanted() -> Op | None:
        if edge not in store.fleet().roster:
            _known(store, edge)
            return None
        return Delete(paths.rostered(edge))

    return _change(store, edge, by, "evict", f"evicts {edge}", wanted)


def _known(store: Store, edge: str) -> None:
    fleet = store.fleet()
    if edge not in fleet.roster and edge not in fleet.alive:
        raise Refused("unknown", f"there is no edge {edge!r}", edges=sorted({*fleet.roster, *fleet.alive}))


def _change(store: Store, edge: str, by: By, action: str, what: str, wanted: Callable[[], Op | None]) -> bool:
    """Write what is ``wanted``, looked at anew where another change came first; False where that is nothing."""
    for _ in range(TRIES):
        if (op := wanted()) is None:
            return False
        try:
            audit.commit(store.zk, [op], by, action, what, edge=edge)
        except Conflict:
            continue
        return True
    raise ZooKeeperTrouble(f"{edge} keeps joining and leaving under this request: try again")
