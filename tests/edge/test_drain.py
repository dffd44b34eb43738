"""How long what is endless may hold a release up: websockets on a withdrawn version, and on one that stays."""

from __future__ import annotations

import contextlib

from fleet.model import Plan
from tests.conftest import eventually
from tests.edge.bed import CONFIG, Edge, WebSocket, World
from tests.edge.steps import committed, first, offered

HASTY = CONFIG.model_copy(update={"response_seconds": 3.0, "drain_seconds": 3.0})
WITHDRAWN = Plan(epoch=4, generation=2, default="B", serving=("B",), retired=("A",))


def overdue(edge: Edge, end: str) -> float:
    return edge.metrics().get(f'pinrail_edge_overdue_total{{edge="edge-1",end="{end}",service="app"}}', 0)


def test_websockets_are_cut_on_a_withdrawn_version_and_go_on_where_it_stays(world: World, edge: Edge) -> None:
    first(world, edge)
    world.configure(config=HASTY)
    plan = offered(world, edge)
    with contextlib.closing(WebSocket(edge, "A")) as going, contextlib.closing(WebSocket(edge, "B")) as staying:
        world.plan(committed(plan, "A"))
        eventually("the switch is acknowledged", lambda: edge.acked(3))
        world.plan(WITHDRAWN)
        eventually("the withdrawal is applied", lambda: edge.ack().applied == 4)
        assert edge.ack().drained < 4
        assert going.echoes() and staying.echoes(), "until its deadline it may go on"
        eventually("it is drained", lambda: edge.ack().drained == 4)
        assert going.ended()
        assert staying.echoes()
        assert (overdue(edge, "cut"), overdue(edge, "left")) == (1, 1)
        assert edge.ask("/").version == "B"
    eventually("nothing is left of the old VCLs", lambda: all(v.status != "discarded" for v in edge.look().vcls), 90)


def test_with_0_it_is_waited_for_until_it_ends(world: World, edge: Edge) -> None:
    first(world, edge)
    world.configure(config=HASTY.model_copy(update={"drain_seconds": 0.0, "response_seconds": 0.2}))
    plan = offered(world, edge)
    with contextlib.closing(WebSocket(edge, "A")) as endless:
        world.plan(committed(plan, "A"))
        eventually("the switch is acknowledged", lambda: edge.acked(3))
        world.plan(WITHDRAWN)
        eventually("the withdrawal is applied", lambda: edge.ack().applied == 4)
        # Looked at again and again, far beyond response_seconds, and never drained.
        world.host("B")
        eventually("the edge has gone on looking", lambda: edge.ack().members == {"B": 2} and edge.ack().applied == 4)
        assert edge.ack().drained < 4 and endless.echoes()
    eventually("it is drained when it has ended", lambda: edge.ack().drained == 4)
    assert overdue(edge, "cut") == overdue(edge, "left") == 0
