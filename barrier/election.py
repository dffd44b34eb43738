"""Which replica drives: an ephemeral sequential node each, the lowest leads; and the fence that makes it safe.

Leading is a belief, the fence is the proof: each new leader raises ``/controllers/fence`` once and names that version
in every transaction, so that a write of one that was deposed without knowing it fails as a whole.
"""

from __future__ import annotations

import contextlib

from fleet import paths
from fleet.zk import Conflict, ZooKeeper


class Election:
    def __init__(self, zk: ZooKeeper, name: str) -> None:
        self._zk = zk
        self._data = name.encode()
        self._own: tuple[int, str] | None = None  # session and node
        self._fence: tuple[str, int] | None = None  # node that took it, and the version it took
        self.leader = ""

    def lead(self) -> int | None:
        """The fence's version to check in every write, or None while another replica leads (see ``leader``)."""
        names = self._zk.children(paths.CANDIDATES)
        own = self._find(names)
        if own is None:
            own = self._zk.candidate(paths.CANDIDATES, self._data)
            names = self._zk.children(paths.CANDIDATES)
        first = names[0] if names else own
        if first != own:
            node = self._zk.get(f"{paths.CANDIDATES}/{first}", watch=False)
            if node is None or node.owner != self._zk.session:
                self._own, self._fence = (self._zk.session, own), None
                self.leader = node.data.decode(errors="replace") if node else "nobody yet"
                return None
            own = first  # made by a create whose answer was lost, which a server that lagged behind did not show us
        self._own = (self._zk.session, own)
        self.leader = self._data.decode()
        if self._fence is None or self._fence[0] != own:
            self._fence = (own, self._raise_fence())
        return self._fence[1]

    def doubt(self) -> None:
        """A write failed: unless the fence is still ours, take it anew, if we lead at all."""
        node = self._zk.get(paths.FENCE, watch=False)
        if self._fence is not None and (node is None or node.version != self._fence[1]):
            self._fence = None

    def _find(self, names: tuple[str, ...]) -> str | None:
        """Our node among ``names``. A create whose answer was lost has made one that nobody told us about."""
        session = self._zk.session
        if self._own is not None and self._own[0] == session and self._own[1] in names:
            return self._own[1]
        nodes = self._zk.get_many([f"{paths.CANDIDATES}/{n}" for n in names])
        mine = [path.rsplit("/", 1)[1] for path, node in nodes.items() if node.owner == session]
        return min(mine, default=None)

    def _raise_fence(self) -> int:
        node = self._zk.get(paths.FENCE, watch=False)
        if node is None:
            with contextlib.suppress(Conflict):  # another replica made it; the version decides
                self._zk.create(paths.FENCE, b"")
            node = self._zk.get(paths.FENCE, watch=False)
        if node is None:
            raise Conflict(f"{paths.FENCE} vanished")
        return self._zk.set(paths.FENCE, self._data, node.version)
