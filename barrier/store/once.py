"""Calls that carry an Idempotency-Key are done once: a znode per key, made in the transaction of the change itself.

It holds what the first call was and, as soon as that is known, what it was answered. It goes when its entry of the
audit goes. ``rollouts.begin`` has its own way: the rollout remembers the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from barrier.snapshot import parse
from fleet import paths
from fleet.model import Wire
from fleet.zk import Conflict, Create, ZooKeeper, ZooKeeperTrouble

#: Largest answer that is kept to be given again.
ANSWER_BYTES = 64 * 1024


class Done(Wire):
    """The first call: which one it was, and its answer once it has been given."""

    call: str
    status: int | None = None
    answer: str = ""


class Repeated(Exception):
    """The call with that key has been made. ``done`` says which, and what came of it."""

    def __init__(self, done: Done) -> None:
        super().__init__("a call with that Idempotency-Key has been made")
        self.done = done


@dataclass(frozen=True)
class Once:
    """A key of one caller, and the call that it is for; both hashed."""

    key: str
    call: str

    @classmethod
    def of(cls, who: str, key: str, call: bytes) -> Once:
        return cls(hashlib.sha256(f"{who}\n{key}".encode()).hexdigest()[:40], hashlib.sha256(call).hexdigest())

    def must_be_first(self, zk: ZooKeeper) -> None:
        """Raises Repeated."""
        path = paths.key(self.key)
        if (node := zk.get(path, watch=False)) is not None:
            raise Repeated(parse(Done, node, path))

    def op(self) -> Create:
        return Create(paths.key(self.key), Done(call=self.call).encode())

    def answered(self, zk: ZooKeeper, status: int, answer: bytes) -> None:
        """Keep the answer, where it is of a size to be kept. One that cannot be written is not: the change is done."""
        path = paths.key(self.key)
        try:
            node = zk.get(path, watch=False)
            if node is not None and len(answer) <= ANSWER_BYTES:
                zk.set(path, Done(call=self.call, status=status, answer=answer.decode()).encode(), node.version)
        except (Conflict, ZooKeeperTrouble):
            return
