"""Where most tests of an edge begin: a first plan applied, a second version offered, the staged change committed."""

from __future__ import annotations

from fleet.model import Plan, Staged
from tests.conftest import eventually
from tests.edge.bed import Edge, World

PLAN = Plan(epoch=1, generation=1, default="A", serving=("A",))


def first(world: World, edge: Edge) -> None:
    """One service, version A served by one host, applied and green."""
    world.configure()
    world.host("A")
    world.plan(PLAN)
    edge.start()
    eventually("the first plan is acknowledged", lambda: edge.acked(1) and edge.ack().healthy == {"A": 1}, 60)
    eventually("the health page turns green", lambda: edge.health() == 200)


def offered(world: World, edge: Edge) -> Plan:
    """B offered beside A and staged; acknowledged."""
    world.host("B")
    plan = Plan(epoch=2, generation=1, default="A", serving=("B", "A"), staged=Staged(generation=2, default="B"))
    world.plan(plan)
    eventually("the offer is acknowledged", lambda: edge.acked(2) and edge.ack().healthy == {"A": 1, "B": 1}, 60)
    return plan


def committed(plan: Plan, back: str) -> Plan:
    done = plan.committed()
    return done.model_copy(
        update={"epoch": plan.epoch + 1, "staged": Staged(generation=done.generation + 1, default=back)}
    )
