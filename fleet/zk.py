"""ZooKeeper, the only importer of kazoo. Every call has a deadline; every failure of the connection is ``Trouble``.

kazoo's synchronous calls block without limit while the session is suspended, so only the ``*_async().get(timeout)``
forms are used; its reconnect backoff grows to an hour by default, so it is bounded to a second here. Watches are
dropped on suspension and carry no data: they only call ``wake``, and each agent re-reads everything now and then.
With an ``Access`` the session authenticates, and every node that it makes carries the list that belongs to its path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kazoo import exceptions as kx
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id

from fleet.access import Access, Role
from fleet.config import BadConfig, load_secret
from fleet.loop import Trouble
from fleet.zk_handler import Handler

#: Answers that are waited for together.
AWAITED = 100


class ZooKeeperTrouble(Trouble):
    """ZooKeeper did not answer in time, or the session is gone. Nothing is known about an unanswered write."""


class Denied(ZooKeeperTrouble):
    """ZooKeeper does not let this part do that."""


class Conflict(Exception):
    """A compare-and-set lost: the node changed, appeared or vanished in between. Read again and decide anew."""


@dataclass(frozen=True)
class Node:
    """One znode as read. ``owner`` is the session of an ephemeral node, 0 for a persistent one."""

    data: bytes
    version: int
    owner: int


@dataclass(frozen=True)
class Create:
    """``sequence``: the server appends ten digits that grow with every such node below the same parent."""

    path: str
    data: bytes
    sequence: bool = False


@dataclass(frozen=True)
class Set:
    path: str
    data: bytes
    version: int


@dataclass(frozen=True)
class Delete:
    path: str
    version: int = -1


@dataclass(frozen=True)
class Check:
    path: str
    version: int


Op = Create | Set | Delete | Check


def read_access(path: Path | None, role: Role) -> Access | None:
    """The access file that a part's configuration names. Raises BadConfig, for one of another role too."""
    if path is None:
        return None
    found = load_secret(path, Access)
    if found.role != role:
        raise BadConfig(f"zookeeper_access: {path} is the file of role {found.role!r}, and this part's is {role!r}")
    return found


class ZooKeeper:
    """A session. ``address`` is ``host:port[,host:port]/chroot``; the chroot is made if it is not there."""

    def __init__(
        self,
        address: str,
        *,
        wake: Callable[..., None],
        session_seconds: float = 10.0,
        deadline: float = 5.0,
        access: Access | None = None,
        before: Access | None = None,
    ) -> None:
        """``before``: who this part was until now, where secrets are being replaced."""
        hosts, _, chroot = address.partition("/")
        if access is not None and not chroot:
            raise BadConfig(f"zookeeper: {address!r} needs a chroot, like {address}/pinrail, to be locked below it")
        self.address = address
        self._access = access
        self._chroot = f"/{chroot}" if chroot else ""
        self._wake = wake
        self._deadline = deadline
        self._client = KazooClient(
            hosts=hosts + self._chroot,
            handler=Handler(),
            timeout=session_seconds,
            connection_retry=KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_delay=1.0),
            command_retry=KazooRetry(max_tries=0),
            auth_data=[("digest", f"{a.role}:{a.secret}") for a in (access, before) if a],
        )
        self._client.add_listener(self._state_changed)
        self._starting: Any = None

    # -- the session --

    def start(self) -> None:
        """Connect; raises ZooKeeperTrouble when no server answers in time (it goes on trying in the background).

        May be called again then: it waits for that same attempt.
        """
        if self._starting is None:  # a second start_async would first wait, without limit, for the first to give up
            self._starting = self._client.start_async()
        self._starting.wait(self._deadline)
        if not self._client.connected:
            raise ZooKeeperTrouble(f"no ZooKeeper answers at {self.address} within {self._deadline:g} s")
        if self._chroot:
            self._call(self._client.ensure_path_async("/", acl=self._acl("/")))

    def close(self) -> None:
        """End the session: its ephemeral nodes vanish at once."""
        self._client.stop()
        self._client.close()

    @property
    def connected(self) -> bool:
        return bool(self._client.state == KazooState.CONNECTED)

    @property
    def session(self) -> int:
        """The session's id, what ``Node.owner`` compares with; 0 while there is none."""
        sid = self._client.client_id
        return int(sid[0]) if sid else 0

    def _state_changed(self, _: str) -> None:
        self._wake()  # no ZooKeeper call in here: a call inside a state listener deadlocks

    def _call(self, pending: Any, path: str = "/") -> Any:
        try:
            return pending.get(timeout=self._deadline)
        except KazooTimeoutError as e:
            raise self._late() from e
        except (kx.ConnectionLoss, kx.SessionExpiredError, kx.ConnectionClosedError, kx.OperationTimeoutError) as e:
            raise ZooKeeperTrouble(f"ZooKeeper at {self.address}: {type(e).__name__}") from e
        except kx.NoAuthError as e:
            raise self._denied(path) from e

    def _late(self) -> ZooKeeperTrouble:
        return ZooKeeperTrouble(f"ZooKeeper at {self.address} did not answer within {self._deadline:g} s")

    def _denied(self, path: str) -> Denied:
        who = f"{self._access.role} of zookeeper_access" if self._access else "anybody without a zookeeper_access file"
        hint = "" if self._access is None or self._access.role == "barrier" else " (is a barrier service running yet?)"
        return Denied(f"ZooKeeper at {self.address} does not let {who} at {path}{hint}")

    def _acl(self, path: str) -> list[ACL]:
        """The list of a node at ``path``: everybody may do everything where this session has no ``Access``."""
        if self._access is None:
            return list(OPEN_ACL_UNSAFE)
        return [ACL(int(right), Id(*who)) for who, right in self._access.entries(path).items()]

    # -- reading --

    def get(self, path: str, *, watch: bool = True) -> Node | None:
        """The node, or None. With ``watch`` (default) its next change, appearance or end calls ``wake``."""
        wake = self._wake if watch else None
        try:
            data, stat = self._call(self._client.get_async(path, watch=wake), path)
        except kx.NoNodeError:
            if watch and self._call(self._client.exists_async(path, watch=wake)) is not None:
                return self.get(path, watch=watch)  # it appeared between the two calls
            return None
        return Node(data, stat.version, stat.ephemeralOwner)

    def get_many(self, paths: Sequence[str], *, watch: bool = False) -> dict[str, Node]:
        """Those of ``paths`` that exist, all in flight at once; watches (off by default) only on those that exist."""
        wake = self._wake if watch else None
        return self._answers([(p, self._client.get_async(p, watch=wake)) for p in paths])

    def get_watched(self, paths: Mapping[str, Callable[[], None]]) -> dict[str, Node]:
        """Those of ``paths`` that exist, all in flight at once. When one next changes or ends, or the connection is in
        doubt, its function is called, in another thread, and then ``wake``.
        """
        return self._answers([(p, self._client.get_async(p, watch=self._told(f))) for p, f in paths.items()])

    def _told(self, changed: Callable[[], None]) -> Callable[[object], None]:
        def tell(_: object) -> None:
            changed()
            self._wake()

        return tell

    def _answers(self, pending: Sequence[tuple[str, Any]]) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for n, (path, answer) in enumerate(pending):
            # They come in the order of the questions; to be woken for each of them would take longer than all else.
            if n % AWAITED == 0 and not pending[min(n + AWAITED, len(pending)) - 1][1].wait(self._deadline):
                raise self._late()
            try:
                data, stat = self._call(answer, path)
            except kx.NoNodeError:
                continue
            found[path] = Node(data, stat.version, stat.ephemeralOwner)
        return found

    def children(self, path: str, *, watch: bool = True, changed: Callable[[], None] | None = None) -> tuple[str, ...]:
        """The names below ``path``, sorted; none where the node does not exist (its appearance then wakes).

        ``changed`` is called before ``wake``, as in ``get_watched``.
        """
        tell = self._told(changed) if changed else self._wake if watch else None
        try:
            return tuple(sorted(self._call(self._client.get_children_async(path, watch=tell), path)))
        except kx.NoNodeError:
            if tell and self._call(self._client.exists_async(path, watch=tell)) is not None:
                return self.children(path, watch=watch, changed=changed)
            return ()

    def count_many(self, paths: Sequence[str]) -> dict[str, int]:
        """How many children each of ``paths`` has, without their names, and without a watch; all in flight at once."""
        pending = {p: self._client.exists_async(p) for p in paths}
        found = {p: self._call(answer, p) for p, answer in pending.items()}
        return {p: int(stat.numChildren) if stat else 0 for p, stat in found.items()}

    def sync(self, path: str) -> None:
        """Reads of ``path`` after this are no older than this call, whichever server answers."""
        self._call(self._client.sync_async(path))

    # -- writing --

    def ensure(self, path: str) -> None:
        """Make ``path`` and its parents where they are missing, empty and persistent."""
        if self._call(self._client.exists_async(path)) is not None:
            return
        if parent := path.rpartition("/")[0]:
            self.ensure(parent)
        with contextlib.suppress(kx.NodeExistsError):
            self._call(self._client.create_async(path, b"", acl=self._acl(path)), path)

    def create(self, path: str, data: bytes) -> None:
        """Raises Conflict if it exists already. Parents are made."""
        self._create(path, data, ephemeral=False)

    def _create(self, path: str, data: bytes, *, ephemeral: bool, sequence: bool = False) -> str:
        def make() -> Any:
            pending = self._client.create_async(path, data, acl=self._acl(path), ephemeral=ephemeral, sequence=sequence)
            return self._call(pending, path)

        try:
            try:
                made = make()
            except kx.NoNodeError:
                self.ensure(path.rpartition("/")[0])
                made = make()
        except kx.NodeExistsError as e:
            raise Conflict(f"{path} exists already") from e
        except kx.NoNodeError as e:
            raise Conflict(f"{path} lost its parent") from e
        return str(made)

    def candidate(self, prefix: str, data: bytes) -> str:
        """A new ephemeral sequential node below ``prefix``; its name. After Trouble look for an own one first."""
        return self._create(f"{prefix}/n-", data, ephemeral=True, sequence=True).rsplit("/", 1)[1]

    def set(self, path: str, data: bytes, version: int) -> int:
        """Compare-and-set; the new version. Raises Conflict."""
        try:
            return int(self._call(self._client.set_async(path, data, version), path).version)
        except (kx.BadVersionError, kx.NoNodeError) as e:
            raise Conflict(f"{path} is no longer at version {version}") from e

    def delete(self, path: str, version: int = -1) -> None:
        """Gone afterwards, and no error where it was not there. Raises Conflict for another version."""
        try:
            self._call(self._client.delete_async(path, version), path)
        except kx.NoNodeError:
            return
        except (kx.BadVersionError, kx.NotEmptyError) as e:
            raise Conflict(f"{path} was not deleted: {type(e).__name__}") from e

    def commit(self, ops: Sequence[Op]) -> None:
        """All of ``ops`` or none. Raises Conflict when any check, version or existence fails. Parents are not made."""
        t = self._client.transaction()
        for op in ops:
            match op:
                case Create(path, data, sequence):
                    t.create(path, data, acl=self._acl(path), sequence=sequence)
                case Set(path, data, version):
                    t.set_data(path, data, version)
                case Delete(path, version):
                    t.delete(path, version)
                case Check(path, version):
                    t.check(path, version)
        results = self._call(t.commit_async())
        for op, result in zip(ops, results, strict=True):
            if isinstance(result, kx.RolledBackError | kx.RuntimeInconsistency):
                continue
            if isinstance(result, kx.NoAuthError):
                raise self._denied(op.path)
            if isinstance(result, Exception):
                raise Conflict(f"{op.path}: {type(result).__name__}")

    def protected(self, path: str) -> bool:
        """Whether the node, where there is one, carries the list that belongs to its path."""
        try:
            there, _ = self._call(self._client.get_acls_async(path), path)
        except kx.NoNodeError:
            return True
        return set(there) == set(self._acl(path))

    def protect(self, path: str) -> None:
        """The node, where there is one, carries the list that belongs to its path afterwards."""
        with contextlib.suppress(kx.NoNodeError):
            self._call(self._client.set_acls_async(path, self._acl(path)), path)

    def hold_ephemeral(self, path: str, data: bytes, replacing: Callable[[bytes], None] = lambda _: None) -> None:
        """This session owns ``path`` with ``data`` afterwards; the node of a dead session is replaced.

        ``replacing`` is given what such a node says; where it raises, that stays.
        """
        node = self.get(path)
        if node is not None and node.owner == self.session:
            if node.data != data:
                self.set(path, data, node.version)
            return
        if node is not None:
            replacing(node.data)
            self.delete(path, node.version)
        self._create(path, data, ephemeral=True)
