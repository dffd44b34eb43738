"""Edges that join, hang, restart, see no host, cannot compile, or are evicted."""

from __future__ import annotations

from fleet.model import RolloutState as S
from tests.proof.scenarios.telling import offered_unseen, requests_last, scenario, until
from tests.proof.world import World


@scenario()
def edge_joins(world: World) -> None:
    """A new edge turns green when it has the plan and is waited for."""
    world.add_edge("edge-9")
    world.settle()
    world.deploy("C")
    world.settle()


@scenario(before="AB", edges=2)
def edge_joins_in_between(world: World) -> None:
    """An edge joins, and turns green, between the leader's look at the roster and its next step."""
    for edge in world.edges.values():  # nobody is left that the leader would wait for
        edge.kill()
        edge.expire()
        world.evict(edge.name)
    new = world.add_edge("edge-9")
    world.deploy("C")
    leader = world.replicas[world.promises.leader]
    assert leader.session is not None
    faults = leader.session.faults
    faults.pause_before_write = True
    faults.meanwhile = lambda: [new.cycle() for _ in range(3)] and None
    leader.cycle()
    assert new.takes_traffic, new.said
    world.rounds(15, idle=["edge-1", "edge-2", "edge-9"])
    world.settle()


@scenario(config={"stall_seconds": 5})
def stall_and_evict(world: World) -> None:
    """An edge's agent is gone: the rollout stalls by name; the edge is evicted, and comes back after the release."""
    world.edges["edge-2"].kill()
    world.edges["edge-2"].expire()
    world.deploy("C")
    world.rounds(10, idle=["edge-2"])
    world.evict("edge-2")
    for _ in range(20):
        world.round(idle=["edge-2"])
    world.settle()


@scenario()
def evicted_edge_serves_on(world: World) -> None:
    """An evicted edge that is only slow is out of the load balancer: what it then serves harms nobody."""
    requests_last(world, "edge-2")
    world.deploy("C")
    world.rounds(4)
    world.evict("edge-2")
    world.rounds(20, idle=["edge-2"])
    world.settle()


@scenario()
def agent_away(world: World) -> None:
    """An edge's agent is gone and its Varnish serves on: its death is not the edge's, and the release waits for it."""
    world.edges["edge-1"].kill()
    world.edges["edge-1"].expire()
    world.deploy("C")
    world.rounds(15, idle=["edge-1"])
    world.settle()


@scenario()
def agent_away_at_the_offer(world: World) -> None:
    """An edge's agent is gone while hosts install: the default does not move without it."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.edges["edge-1"].kill()
    world.edges["edge-1"].expire()
    world.rounds(25, idle=["edge-1"])
    world.settle()


@scenario()
def probes_find_nothing(world: World) -> None:
    """One edge cannot reach the hosts of C: the default does not move, and it says how many that edge sees."""
    world.deploy("C")
    offered_unseen(world)
    world.rounds(10)
    world.edges["edge-1"].varnish.probes_stuck = False
    world.settle()


@scenario(config={"stall_seconds": 5})
def compiler_fails(world: World) -> None:
    """Varnish refuses to compile at one edge: the release waits, and says what the compiler said."""
    world.edges["edge-1"].varnish.broken_compiler = "cc: no space left on device"
    world.deploy("C")
    world.rounds(8)
    world.edges["edge-1"].varnish.broken_compiler = None
    world.settle()


@scenario()
def staging_fails(world: World) -> None:
    """One edge has the offer, and cannot compile what is staged: no edge switches."""
    world.deploy("C")
    until(world, S.INSTALLING)
    varnish = world.edges["edge-1"].varnish
    varnish.broken_compiler, varnish.compiles = "cc: no space left on device", 1
    until(world, S.OFFERING)
    world.rounds(8)
    varnish.broken_compiler = None
    world.settle()


@scenario()
def edge_restarts(world: World) -> None:
    """An edge boots from its last good set while A is withdrawn: it takes no traffic until it has the latest plan."""
    edge = world.edges["edge-1"]
    world.deploy("C")
    until(world, S.INSTALLING)
    edge.restart_all()
    world.rounds(3, idle=["edge-1"])
    world.settle()


def _switched_without(world: World, name: str) -> None:
    """A release of C is switched, and that edge, though ready for it, has not looked since."""
    world.deploy("C")
    edge, rollout = world.edges[name], world.rollout()
    while rollout is not None and rollout.state is not S.SWITCHED:
        ack = edge.ack()
        ready = ack is not None and ack.staged >= world.plan().epoch and ack.healthy.get("C", 0) >= len(world.machines)
        world.round(idle=[name] if ready else ())
        rollout = world.rollout()


@scenario()
def edge_restarts_at_the_switch(world: World) -> None:
    """An edge boots before it has switched: it takes no traffic until it has, however long its probes take."""
    _switched_without(world, "edge-1")
    edge = world.edges["edge-1"]
    edge.restart_all()
    edge.varnish.probes_stuck = True
    edge.cycle()
    world.round(0.1)
    edge.varnish.probes_stuck = False
    world.settle()
