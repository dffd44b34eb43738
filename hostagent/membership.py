"""This host's members in one service's server sets: exactly those that it is told, owned by the living session."""

from __future__ import annotations

from pydantic import ValidationError

from fleet import paths
from fleet.model import Member, decode
from fleet.zk import ZooKeeper


class Membership:
    def __init__(self, zk: ZooKeeper, service: str, host: str) -> None:
        self._zk = zk
        self._service = service
        self._host = host
        #: What this agent may have registered: noted before it is written, for an unanswered write may be done.
        self._held: set[str] = set()
        #: The session that was last looked through for what an earlier life left behind.
        self._swept = 0

    def apply(self, wanted: dict[str, Member], endpoints: set[str]) -> None:
        """``wanted`` by path. ``endpoints`` are all that this host could have registered. Leaving comes first.

        Raises ZooKeeperTrouble or Conflict.
        """
        for path in sorted(self._held - wanted.keys()):
            self._zk.delete(path)
            self._held.discard(path)
        if endpoints and self._swept != (session := self._zk.session):
            self._sweep(wanted, endpoints)
            self._swept = session
        for path, member in wanted.items():
            self._held.add(path)
            self._zk.hold_ephemeral(path, member.encode())

    def _sweep(self, wanted: dict[str, Member], endpoints: set[str]) -> None:
        """The nodes of a killed agent's session live on for its timeout: they must not name what runs no more."""
        versions = self._zk.children(paths.serversets(self._service), watch=False)
        candidates = [paths.member(self._service, v, e) for v in versions for e in endpoints]
        for path, node in self._zk.get_many([p for p in candidates if p not in wanted]).items():
            if _of(node.data) == self._host:
                self._zk.delete(path)


def _of(data: bytes) -> str | None:
    try:
        member = decode(Member, data)
    except ValidationError:
        return None
    return member.name if member else None
