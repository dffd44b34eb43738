"""The model of ZooKeeper answers as the real one does: the same calls on both, answer by answer."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fleet.zk import Check, Conflict, Create, Delete, Op, Set, ZooKeeper
from tests.proof.zookeeper import Server, Session

PATHS = ("/services/a", "/services/b", "/services/a/c", "/services/a/c/d")
#: Nobody here makes children of ephemeral nodes.
LEAVES = ("/services/b", "/services/a/c/d")
DATA = (b"", b"1", b"2")


def op(chance: random.Random) -> Op:
    path, data, version = chance.choice(PATHS), chance.choice(DATA), chance.choice((-1, 0, 1, 2))
    made = Create(path, data, chance.random() < 0.3)
    return chance.choice((made, Set(path, data, version), Delete(path, version), Check(path, max(0, version))))


def call(chance: random.Random) -> tuple[object, ...]:
    """The name of a method, and what it is called with."""
    path, data, version = chance.choice(PATHS), chance.choice(DATA), chance.choice((-1, 0, 1, 2))
    return chance.choice(
        (
            ("commit", [op(chance) for _ in range(chance.randint(1, 3))]),
            ("create", path, data),
            ("set", path, data, version),
            ("delete", path, version),
            ("hold_ephemeral", chance.choice(LEAVES), data),
            ("get", path),
            ("children", path),
            ("get_many", [path, *PATHS[:2]]),
            ("candidate", "/services", data),
        )
    )


class Twin:
    """One kind of ZooKeeper: the caller's session, a second one that owns ephemerals too, and what they say."""

    def __init__(self, connect: Callable[[], ZooKeeper], top: str) -> None:
        self.connect, self.top = connect, top
        self.watching = connect()
        self.zk = connect()

    def say(self, call: tuple[object, ...]) -> object:
        name, *args = call
        if name == "expire":
            self.zk.close()
            self.zk = self.connect()
            return None
        try:
            return self._plain(getattr(self.zk, str(name))(*[self._below(a) for a in args]))
        except Conflict:
            return "Conflict"

    def _below(self, arg: object) -> object:
        if isinstance(arg, str) and arg.startswith("/"):
            return self.top + arg
        if isinstance(arg, list):
            return [self._below(a) for a in arg]
        return type(arg)(**vars(arg) | {"path": self.top + arg.path}) if isinstance(arg, Op) else arg

    def _plain(self, said: object) -> object:
        if isinstance(said, dict):
            return {p.removeprefix(self.top): self._plain(n) for p, n in said.items()}
        if said is not None and hasattr(said, "owner"):
            return (said.data, said.version, said.owner == self.zk.session, bool(said.owner))
        return said

    def tree(self) -> object:
        self.watching.sync(self.top)
        found = self.watching.get_many([self.top + p for p in PATHS])
        below = [self.watching.children(self.top + p, watch=False) for p in ("/services", *PATHS)]
        return {p.removeprefix(self.top): (n.data, n.version, bool(n.owner)) for p, n in found.items()}, below


@pytest.mark.parametrize("seed", range(2))
def test_the_model_says_what_zookeeper_says(connect: Callable[..., ZooKeeper], seed: int) -> None:
    chance, server = random.Random(seed), Server()
    twins = [Twin(connect, ""), Twin(lambda: Session(server, "model", "barrier"), "")]
    for twin in twins:
        twin.zk.ensure("/services/a")
    for number in range(200):
        made = ("expire",) if number % 100 == 99 else call(chance)
        assert twins[1].say(made) == twins[0].say(made), (number, made)
        assert twins[1].tree() == twins[0].tree(), (number, made)
