"""Which edges barriers wait for, as far as an operator decides it."""

from __future__ import annotations

from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.zk import Conflict, Create, Delete, ZooKeeperTrouble


def leave(store: Store, edge: str, by: By) -> bool:
    """The edge's page turns red and it joins no more; barriers wait for it until it is evicted. False: it was so."""
    for _ in range(TRIES):
        _known(store, edge)
        if store.zk.get(paths.leaving(edge), watch=False) is not None:
            return False
        store.zk.ensure(paths.LEAVING)
        try:
            audit.commit(store.zk, [Create(paths.leaving(edge), b"")], by, "leave", f"lets {edge} leave", edge=edge)
        except Conflict:
            continue
        return True
    raise ZooKeeperTrouble(f"{edge} keeps leaving and returning under this request: try again")


def come_back(store: Store, edge: str, by: By) -> bool:
    """It may join again, and does so by itself where its agent runs. False: nobody had let it leave."""
    for _ in range(TRIES):
        if store.zk.get(paths.leaving(edge), watch=False) is None:
            _known(store, edge)
            return False
        try:
            audit.commit(store.zk, [Delete(paths.leaving(edge))], by, "return", f"takes {edge} back", edge=edge)
        except Conflict:
            continue
        return True
    raise ZooKeeperTrouble(f"{edge} keeps leaving and returning under this request: try again")


def _known(store: Store, edge: str) -> None:
    fleet = store.fleet()
    if edge not in fleet.roster and edge not in fleet.alive:
        raise Refused("unknown", f"there is no edge {edge!r}", edges=sorted({*fleet.roster, *fleet.alive}))


def evict(store: Store, edge: str, by: By) -> bool:
    """Barriers no longer wait for ``edge``. False where it was not on the roster, but lives; Refused: unknown."""
    for _ in range(TRIES):
        fleet = store.fleet()
        if edge not in fleet.roster:
            _known(store, edge)
            return False
        try:
            audit.commit(store.zk, [Delete(paths.rostered(edge))], by, "evict", f"evicts {edge}", edge=edge)
        except Conflict:
            continue
        return True
    raise ZooKeeperTrouble(f"{edge} keeps joining and leaving under this request: try again")
