"""A ZooKeeper in memory: versions, sessions, ephemerals, transactions; and everything that can happen to a call.

``Session`` has the face of ``fleet.zk.ZooKeeper`` and keeps that class's own code where it only composes calls.
``test_zookeeper`` compares it with a real server. What a test can do to a session: cut it off, let it read from a
server that lags behind, kill it at a write or just after one, lose an answer, run others in between two calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fleet.access import Right, Role, rights
from fleet.zk import Check, Conflict, Create, Delete, Denied, Node, Op, Set, ZooKeeper, ZooKeeperTrouble


class Killed(BaseException):
    """The process ends here, from one instruction to the next."""


@dataclass(frozen=True)
class Stored:
    data: bytes
    version: int = 0
    owner: int = 0
    #: Children that were ever made below it: what the next sequential one is called by.
    made: int = 0


Tree = dict[str, Stored]


@dataclass(frozen=True)
class Change:
    """One node, before and after a transaction; None where it is not there."""

    path: str
    before: bytes | None
    after: bytes | None


class Server:
    """Every state that there ever was is kept: a server that lags behind answers from an older one."""

    def __init__(self) -> None:
        self.states: list[Tree] = [{}]
        self.up = True
        self.watchers: list[Callable[[Session, Sequence[Op], tuple[Change, ...]], None]] = []
        #: Told of each transaction that failed as a whole, and why.
        self.refusals: list[Callable[[Session, Sequence[Op], Conflict], None]] = []
        self._sessions = 0

    @property
    def now(self) -> Tree:
        return self.states[-1]

    def session(self) -> int:
        self._sessions += 1
        return self._sessions

    def expire(self, session: int) -> None:
        """Its ephemeral nodes vanish."""
        if any(s.owner == session for s in self.now.values()):
            self.states.append({p: s for p, s in self.now.items() if s.owner != session})

    def write(self, session: Session, ops: Sequence[Op]) -> list[str]:
        """All or nothing; the paths as they were made. Raises Conflict."""
        tree, made = dict(self.now), []
        try:
            for op in ops:
                _may(session.role, op)
                made.append(_apply(tree, op, session.session))
        except Conflict as e:
            for told in self.refusals:
                told(session, ops, e)
            raise
        touched = [p for p in made if tree.get(p) is not self.now.get(p)]
        changes = tuple(Change(p, _data(self.now, p), _data(tree, p)) for p in dict.fromkeys(touched))
        self.states.append(tree)
        for watcher in self.watchers:
            watcher(session, ops, changes)
        return made


@functools.cache
def _rights(path: str) -> dict[Role, Right]:
    return rights(path)


def _may(role: Role, op: Op) -> None:
    """As the lists would have it that ``fleet.access`` puts on every node."""
    at, needs = (op.path, Right.WRITE) if isinstance(op, Set) else (_parent(op.path) or "/", Right.CREATE)
    if isinstance(op, Delete):
        needs = Right.DELETE
    if not isinstance(op, Check) and not _rights(at)[role] & needs:
        raise Denied(f"{role} may not {type(op).__name__} {op.path}")


def _data(tree: Tree, path: str) -> bytes | None:
    return tree[path].data if path in tree else None


def _same(path: str, stored: Stored, tree: Tree) -> bool:
    return tree.get(path) is stored


def _names(tree: Tree, path: str) -> tuple[str, ...]:
    start = f"{path}/"
    return tuple(sorted(p[len(start) :] for p in tree if p.startswith(start) and "/" not in p[len(start) :]))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass(frozen=True)
class Ephemeral(Create):
    """A create whose node ends with its session."""


def _apply(tree: Tree, op: Op, session: int) -> str:
    path = op.path
    if isinstance(op, Create):
        parent = _parent(path)
        if parent and parent not in tree:
            raise Conflict(f"{path}: NoNodeError")
        if op.sequence:
            path = f"{path}{tree[parent].made:010d}"
        if path in tree:
            raise Conflict(f"{path}: NodeExistsError")
        if parent and tree[parent].owner:
            raise Conflict(f"{path}: NoChildrenForEphemeralsError")
        if parent:
            tree[parent] = replace(tree[parent], made=tree[parent].made + 1)
        tree[path] = Stored(op.data, owner=session if isinstance(op, Ephemeral) else 0)
        return path
    stored = tree.get(path)
    if stored is None:
        raise Conflict(f"{path}: NoNodeError")
    if op.version not in (-1, stored.version):
        raise Conflict(f"{path}: BadVersionError")
    if isinstance(op, Set):
        tree[path] = replace(stored, data=op.data, version=stored.version + 1)
    elif isinstance(op, Delete):
        if any(_parent(p) == path for p in tree):
            raise Conflict(f"{path}: NotEmptyError")
        del tree[path]
    return path


@dataclass
class Faults:
    """What is going to happen to a session. Each is used up by happening, but for ``cut`` and ``behind``."""

    #: No server can be reached.
    cut: bool = False
    #: Reads come from a state so many writes old, though never from before what the session has seen.
    behind: int = 0
    #: Writes that still succeed before the process is killed; ``done``: the last one of them has happened already.
    kill_in: int | None = None
    #: Writes until one whose answer is lost.
    lose_in: int | None = None
    #: Calls until others get their chance, or: just before the next write; and what they then do.
    pause_in: int | None = None
    pause_before_write: bool = False
    meanwhile: Callable[[], None] = field(default=lambda: None)


class Session(ZooKeeper):
    """One client of the model server."""

    def __init__(
        self, server: Server, name: str, role: Role
    ) -> None:  # not super().__init__: that would make a real client
        self.server = server
        self.name = name
        self.role = role
        self.address = "model"
        self.faults = Faults()
        self._chroot = ""
        self._wake = lambda *_: None
        self._id = server.session()
        self._seen = 0
        #: The state that the last read was answered from; and the same for the last read of a node's children.
        self.read_from: Tree = server.now
        self.read_below: dict[str, Tree] = {}
        #: Of what was read with a watch: is it still so in that tree, and who is told when it is not.
        self._watched: list[tuple[Callable[[Tree], bool], Callable[[], None]]] = []
        self._told: Tree | None = None

    # -- the session --

    def start(self) -> None:
        self._call()

    def close(self) -> None:
        self.server.expire(self._id)

    def expire(self) -> None:
        """The server gave the session up; the client, which may not know, gets a new one with its next call."""
        self.server.expire(self._id)
        self._id = self.server.session()
        self._tell(None)

    @property
    def connected(self) -> bool:
        return self.server.up and not self.faults.cut

    @property
    def session(self) -> int:
        return self._id

    def _call(self) -> None:
        f = self.faults
        if f.pause_in is not None:
            f.pause_in -= 1
            if f.pause_in < 0:
                f.pause_in = None
                f.meanwhile()
        if not self.connected:
            self._tell(None)
            raise ZooKeeperTrouble("ZooKeeper at model did not answer")

    def _tell(self, tree: Tree | None) -> None:
        """Watches of what is another in ``tree`` fire, before anything is answered from it; None: all of them."""
        if tree is self._told:
            return
        self._told = tree
        over = [w for w in self._watched if tree is None or not w[0](tree)]
        self._watched = [w for w in self._watched if w not in over]
        for _, changed in over:
            changed()

    # -- reading --

    def _tree(self) -> Tree:
        self._call()
        newest = len(self.server.states) - 1
        self._seen = max(self._seen, newest - self.faults.behind)
        self.read_from = self.server.states[self._seen]
        self._tell(self.read_from)
        return self.read_from

    def get(self, path: str, *, watch: bool = True) -> Node | None:
        stored = self._tree().get(path)
        return Node(stored.data, stored.version, stored.owner) if stored else None

    def get_many(self, wanted: Sequence[str], *, watch: bool = False) -> dict[str, Node]:
        tree = self._tree()
        if wanted:
            self.read_below[_parent(wanted[0])] = tree
        return {p: Node(s.data, s.version, s.owner) for p in wanted if (s := tree.get(p)) is not None}

    def get_watched(self, wanted: Mapping[str, Callable[[], None]]) -> dict[str, Node]:
        found = self.get_many(list(wanted))
        for path in found:
            self._watched.append((partial(_same, path, self.read_from[path]), wanted[path]))
        return found

    def children(self, path: str, *, watch: bool = True, changed: Callable[[], None] | None = None) -> tuple[str, ...]:
        tree = self.read_below[path] = self._tree()
        found = _names(tree, path)
        if changed:
            self._watched.append((lambda t: _names(t, path) == found and (path in t) == (path in tree), changed))
        return found

    def count_many(self, wanted: Sequence[str]) -> dict[str, int]:
        return {p: len(self.children(p)) for p in wanted}

    def sync(self, path: str) -> None:
        self._call()
        self._seen = len(self.server.states) - 1

    # -- writing --

    def commit(self, ops: Sequence[Op]) -> None:
        self._write(ops)

    def protected(self, path: str) -> bool:
        self._call()
        return True

    def protect(self, path: str) -> None:
        self._call()

    def _write(self, ops: Sequence[Op]) -> list[str]:
        f = self.faults
        if f.pause_before_write:
            f.pause_before_write = False
            f.meanwhile()
        self._call()
        if f.kill_in == 0:
            raise Killed
        made = self.server.write(self, ops)
        if f.kill_in is not None:
            f.kill_in -= 1
        if f.lose_in is not None:
            f.lose_in -= 1
            if f.lose_in < 0:  # the session has not seen it either: another server may answer from before it
                f.lose_in = None
                raise ZooKeeperTrouble("ZooKeeper at model did not answer in time")
        self._seen = len(self.server.states) - 1
        return made

    def ensure(self, path: str) -> None:
        there = self._tree()
        parts = path.strip("/").split("/")
        for i in range(1, len(parts) + 1):
            if (p := "/" + "/".join(parts[:i])) not in there and p not in self.server.now:
                self._write([Create(p, b"")])

    def _create(self, path: str, data: bytes, *, ephemeral: bool, sequence: bool = False) -> str:
        if parent := _parent(path):
            self.ensure(parent)
        return self._write([(Ephemeral if ephemeral else Create)(path, data, sequence)])[0]

    def set(self, path: str, data: bytes, version: int) -> int:
        self._write([Set(path, data, version)])
        return self.server.now[path].version

    def delete(self, path: str, version: int = -1) -> None:
        if path in self.server.now:
            self._write([Delete(path, version)])
        else:
            self._call()


class Part:
    """A process with a session. Where it is killed, its session lives on until it expires."""

    def __init__(self, server: Server, name: str, role: Role) -> None:
        self.name = name
        self.server = server
        self._role = role
        self.session: Session | None = None
        self._forsaken: list[int] = []

    def connect(self) -> Session:
        """At each start of the process."""
        if self.session is not None:
            self._forsaken.append(self.session.session)
        self.session = Session(self.server, self.name, self._role)
        return self.session

    def bury(self) -> None:
        """The sessions of its earlier lives expire."""
        for session in self._forsaken:
            self.server.expire(session)
        self._forsaken.clear()

    def expire(self) -> None:
        """All of its sessions expire; where it lives, it will notice."""
        self.bury()
        if self.session is not None:
            self.session.expire()

    def kill(self) -> None:
        raise NotImplementedError

    def cycle(self) -> None:
        """It looks once; it is started where it does not run."""
        raise NotImplementedError


__all__ = ["Change", "Check", "Ephemeral", "Faults", "Killed", "Part", "Server", "Session", "Tree"]
