"""The ZooKeeper wrapper against a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fleet.loop import Trouble
from fleet.zk import Check, Conflict, Create, Delete, Set, ZooKeeper
from pinrail.local.ports import free_port
from tests.conftest import eventually

Connect = Callable[..., ZooKeeper]


def test_a_node_is_created_read_and_compared_and_set(zk: ZooKeeper) -> None:
    assert zk.get("/a/b") is None
    zk.create("/a/b", b"one")
    node = zk.get("/a/b")
    assert node is not None
    assert (node.data, node.owner) == (b"one", 0)
    assert zk.set("/a/b", b"two", node.version) == node.version + 1
    with pytest.raises(Conflict, match="no longer at version"):
        zk.set("/a/b", b"three", node.version)
    with pytest.raises(Conflict, match="exists already"):
        zk.create("/a/b", b"")


def test_a_transaction_is_all_or_nothing(zk: ZooKeeper) -> None:
    zk.create("/fence", b"")
    zk.create("/x", b"1")
    with pytest.raises(Conflict, match="/fence"):
        zk.commit([Set("/x", b"2", 0), Create("/y", b""), Check("/fence", 7)])
    assert zk.get("/y") is None
    node = zk.get("/x")
    assert node is not None
    assert node.data == b"1"
    zk.commit([Set("/x", b"2", 0), Create("/y", b""), Check("/fence", 0)])
    zk.commit([Delete("/y")])
    assert zk.children("/") == ("fence", "x")


def test_an_ephemeral_node_of_a_dead_session_is_taken_over(connect: Connect) -> None:
    first, second = connect(), connect()
    first.hold_ephemeral("/e", b"old")
    second.hold_ephemeral("/e", b"new")
    first.close()
    node = second.get("/e")
    assert node is not None
    assert (node.data, node.owner) == (b"new", second.session)


def test_an_ephemeral_node_that_is_not_to_be_replaced_stays(connect: Connect) -> None:
    first, second = connect(), connect()
    first.hold_ephemeral("/e", b"theirs")

    def replacing(data: bytes) -> None:
        if data == b"theirs":
            raise Trouble("it is somebody else's")

    with pytest.raises(Trouble, match="somebody else's"):
        second.hold_ephemeral("/e", b"ours", replacing)
    first.hold_ephemeral("/e", b"theirs, again", replacing)  # nobody asks about one's own
    node = second.get("/e")
    assert node is not None
    assert (node.data, node.owner) == (b"theirs, again", first.session)
    second.hold_ephemeral("/e", b"ours", replacing)
    node = second.get("/e")
    assert node is not None and node.owner == second.session


def test_changes_appearances_and_ends_wake(connect: Connect, zk: ZooKeeper) -> None:
    woken = threading.Event()
    watcher = connect(lambda *_: woken.set())
    assert watcher.get("/w") is None
    for change in (
        lambda: zk.create("/w", b""),
        lambda: zk.set("/w", b"2", 0),
        lambda: zk.create("/w/child", b""),
        lambda: zk.delete("/w/child"),
    ):
        watcher.get("/w")
        watcher.children("/w")
        woken.clear()
        change()
        eventually("the watch to wake", woken.is_set)


def test_many_reads_return_what_exists(zk: ZooKeeper) -> None:
    zk.create("/m/1", b"a")
    assert {p: n.data for p, n in zk.get_many(["/m/1", "/m/2"]).items()} == {"/m/1": b"a"}


def test_no_server_is_trouble_within_the_deadline() -> None:
    zk = ZooKeeper(f"127.0.0.1:{free_port()}/x", wake=lambda *_: None, deadline=0.5)
    with pytest.raises(Trouble, match="no ZooKeeper answers"):
        zk.start()
    with pytest.raises(Trouble):
        zk.get("/a")
    zk.close()
