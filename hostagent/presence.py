"""This host's node below one service: what it says of itself, and that nobody else is called as it is."""

from __future__ import annotations

from pydantic import ValidationError

from fleet import paths
from fleet.loop import Trouble
from fleet.model import HostStatus, decode
from fleet.zk import ZooKeeper


class Namesake(Trouble):
    """Another host has this one's name: what either of them says or is told is then the other's, too."""


class Presence:
    def __init__(self, zk: ZooKeeper, service: str, name: str, address: str) -> None:
        self._zk = zk
        self._path = paths.host(service, name)
        self._name = name
        self._address = address
        #: The session in which nobody else was seen; 0: none.
        self._alone_in = 0

    def must_be_alone(self) -> None:
        """Looked at once in a session, before anything is done in it. Raises Namesake or ZooKeeperTrouble."""
        if self._alone_in == (session := self._zk.session):
            return
        node = self._zk.get(self._path)
        if node is not None and node.owner != session:
            self._must_be_ours(node.data)
        self._alone_in = session

    def say(self, status: HostStatus) -> None:
        """Raises Namesake, ZooKeeperTrouble or Conflict."""
        self._zk.hold_ephemeral(self._path, status.encode(), self._must_be_ours)

    def leave(self) -> None:
        self._zk.delete(self._path)

    def _must_be_ours(self, data: bytes) -> None:
        """``data`` is of an earlier session of this very host."""
        try:
            other = decode(HostStatus, data)
        except ValidationError:
            return
        if other is not None and other.address != self._address:
            self._alone_in = 0
            raise Namesake(
                f"another agent calls itself {self._name} too, and is at {other.address}: give one of the two another "
                "`name` (if that was this host, at another address, it is over soon)"
            )
