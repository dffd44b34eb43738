"""An operator's own VCL for a service, against a real varnishd: taken up, refused with its reason, never lost."""

from __future__ import annotations

import signal

import pytest

from fleet.model import Plan
from tests.conftest import ZooKeeperServer, eventually
from tests.edge.bed import Edge, World
from tests.edge.steps import committed, first, offered

GOOD = """vcl 4.1;
sub vcl_deliver {
    set resp.http.x-own = "%s";
}
"""
BAD = "sub vcl_deliver { set resp.http.x-own = nonsense; }"
FAULT = 'pinrail_edge_fault{edge="edge-1",kind="vcl",service="app"}'


def own(edge: Edge) -> str | None:
    return edge.ask("/").headers.get("x-own")


def test_it_is_taken_up_corrected_and_survives_a_restart_without_zookeeper(
    world: World, edge: Edge, zookeeper_server: ZooKeeperServer
) -> None:
    edge.own(GOOD % "one")
    first(world, edge)
    assert own(edge) == "one"
    offered(world, edge)

    edge.own(BAD)
    eventually("the refusal is acknowledged", lambda: "nonsense" in (edge.ack().error or ""))
    assert "staged VCL" in (edge.ack().error or "")
    assert edge.metrics()[FAULT] == 1
    assert own(edge) == "one" and edge.health() == 200
    assert edge.acked(2), "the plan itself is in force"
    second = world.host("A")
    eventually("hosts come and go all the same", lambda: edge.ack().healthy == {"A": 2, "B": 1})
    eventually("by requests", lambda: edge.ask("/").status == 200 and second.asked)
    assert own(edge) == "one"

    edge.own(GOOD % "two")
    eventually("a corrected file is taken up", lambda: own(edge) == "two")
    eventually("nothing is refused any more", lambda: edge.ack().error is None and FAULT not in edge.metrics())

    edge.own(BAD)
    eventually("and a bad one refused again", lambda: "nonsense" in (edge.ack().error or ""))
    zookeeper_server.stop()
    try:
        edge.close()
        edge.start()
        eventually("the last good set serves, red", lambda: edge.health() == 503 and own(edge) == "two", 30)
    finally:
        zookeeper_server.start()
    eventually("ZooKeeper is back for the test", lambda: world.zk.connected, 30)
    eventually("it is green, on what was good", lambda: edge.health() == 200 and edge.acked(2), 30)
    assert own(edge) == "two"
    eventually("and what is wrong is said", lambda: "nonsense" in (edge.ack().error or ""))


def test_a_broken_one_holds_up_no_release_and_no_rollback(world: World, edge: Edge) -> None:
    edge.own(GOOD % "one")
    first(world, edge)
    plan = offered(world, edge)
    edge.own(BAD)
    eventually("the refusal is acknowledged", lambda: "nonsense" in (edge.ack().error or ""))
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged, the refusal too", lambda: edge.acked(3) and edge.ack().error)
    assert (edge.ask("/").version, own(edge)) == ("B", "one")
    world.plan(committed(committed(plan, "A"), "B"))
    eventually("the rollback is acknowledged", lambda: edge.acked(4))
    world.plan(Plan(epoch=5, generation=3, default="A", serving=("A",), retired=("B",)))
    eventually("a withdrawal too", lambda: edge.acked(5) and edge.ack().drained == 5)
    assert (edge.ask("/").version, own(edge)) == ("A", "one")


@pytest.mark.parametrize(
    ("content", "says"), [(b"\xff\xfe", "is not UTF-8"), (b"#" * 300_000, "is larger than"), (None, "cannot read")]
)
def test_a_file_that_cannot_be_read_is_refused_too(world: World, edge: Edge, content: bytes | None, says: str) -> None:
    if content is None:
        assert edge.config.varnish.own
        (edge.config.varnish.own / "app.vcl").mkdir()
    else:
        edge.own(content)
    world.configure()
    world.host("A")
    world.plan(Plan(epoch=1, generation=1, default="A", serving=("A",)))
    edge.start()
    eventually("it is acknowledged", lambda: says in (edge.ack().error or ""))
    assert edge.ack().applied == 0 and edge.health() == 503
    edge.kill("run", signal.SIGTERM)
