"""What many nodes say, asked again only where it changed: against a real ZooKeeper, by the reads that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fleet.recall import SECONDS, Recall
from fleet.zk import Create, Delete, Node, Set, ZooKeeper
from tests.conftest import eventually

NAMES = ("a", "b", "c")


class Bed:
    """Three nodes, a reader that counts what it asks of ZooKeeper, and a clock."""

    def __init__(self, connect: Callable[..., ZooKeeper]) -> None:
        self.other, self.zk = connect(), connect()
        self.other.ensure("/nodes")
        for name in NAMES:
            self.other.create(f"/nodes/{name}", b"1")
        self.now = 0.0
        self.asked: list[str] = []
        self._honest, self._lists = self.zk.get_watched, self.zk.children
        self.zk.get_watched, self.zk.children = self._counted, self._listed  # type: ignore[method-assign]
        self.recall = Recall(self.zk, monotonic=lambda: self.now)

    def _listed(self, path: str, **how: Any) -> tuple[str, ...]:
        self.asked.append("list")
        return self._lists(path, **how)

    def _counted(self, paths: Mapping[str, Callable[[], None]]) -> dict[str, Node]:
        self.asked += sorted(p.rpartition("/")[2] for p in paths)
        return self._honest(paths)

    def read(self) -> dict[str, bytes]:
        """``asked`` then has the nodes, and "list", that ZooKeeper was asked for."""
        self.asked.clear()
        return self.recall.below("/nodes", lambda node, _: node.data)


@pytest.fixture
def bed(connect: Callable[..., ZooKeeper]) -> Iterator[Bed]:
    yield Bed(connect)


def test_only_what_changed_is_asked_again(bed: Bed) -> None:
    assert bed.read() == dict.fromkeys(NAMES, b"1")
    assert bed.asked == ["list", *NAMES]
    assert bed.read() == dict.fromkeys(NAMES, b"1")
    assert bed.asked == []
    bed.other.set("/nodes/b", b"2", 0)
    eventually("the change to be seen", lambda: bed.read()["b"] == b"2")
    assert bed.asked == ["b"]


def test_a_node_that_ends_and_comes_again_is_another(bed: Bed) -> None:
    bed.read()
    bed.other.delete("/nodes/b")
    eventually("its end to be seen", lambda: "b" not in bed.read())
    bed.other.create("/nodes/b", b"3")
    eventually("it to be seen again", lambda: bed.read() == {"a": b"1", "b": b"3", "c": b"1"})
    assert bed.asked == ["list", "b"]


def test_a_parent_that_appears_is_seen(bed: Bed) -> None:
    assert bed.recall.children("/later") == ()
    bed.other.create("/later/x", b"")
    eventually("it to be seen", lambda: bed.recall.children("/later") == ("x",))


def test_what_was_written_here_is_known(bed: Bed) -> None:
    bed.read()
    bed.zk.commit([Set("/nodes/a", b"2", 0), Delete("/nodes/b"), Create("/nodes/d", b"4")])
    bed.recall.written("/nodes", {"a": b"2", "d": b"4"}, gone=["b"])
    assert bed.read() == {"a": b"2", "c": b"1", "d": b"4"}
    assert bed.asked == ["list"]


def test_what_ended_here_and_was_made_again_by_another_is_asked(bed: Bed) -> None:
    bed.read()
    bed.zk.delete("/nodes/b")
    bed.recall.written("/nodes", {}, gone=["b"])
    bed.other.create("/nodes/b", b"3")
    assert bed.read()["b"] == b"3"


def test_everything_is_asked_again_after_a_while(bed: Bed) -> None:
    """So that a watch that was lost costs delay and nothing else."""
    bed.read()
    bed.now = SECONDS + 1
    bed.read()
    assert bed.asked == ["list", *NAMES]


def test_a_connection_that_was_lost_voids_all_of_it(bed: Bed) -> None:
    bed.read()
    bed.zk._client._connection._socket.shutdown(2)
    eventually("it to be connected again, and to ask for all", lambda: bed.zk.connected and bed.read() and bed.asked)
    assert bed.asked == ["list", *NAMES]


def test_what_cannot_be_read_is_never_recalled(bed: Bed) -> None:
    def refuse(node: Node, path: str) -> bytes:
        if path.endswith("b"):
            raise ValueError(path)
        return node.data

    for _ in range(2):
        with pytest.raises(ValueError, match="/nodes/b"):
            bed.recall.below("/nodes", refuse)
