"""Replicas that die, sleep or lose their sessions, and ZooKeeper away."""

from __future__ import annotations

from fleet.model import RolloutState as S
from tests.proof.scenarios.telling import requests_last, scenario, until
from tests.proof.world import World


@scenario()
def deposed_leader(world: World) -> None:
    """The leader is stopped in the middle of a decision, for longer than its session; its write comes too late."""
    requests_last(world)
    world.deploy("C")
    until(world, S.WITHDRAWING)
    world.edges["edge-1"].varnish.end()
    leader = world.replicas[world.promises.leader]

    def meanwhile() -> None:
        leader.expire()
        for _ in range(3):
            world.round(idle=[leader.name])
            world.ask("abort")

    assert leader.session is not None
    for part in world.edges.values():
        part.cycle()
    leader.session.faults.pause_before_write, leader.session.faults.meanwhile = True, meanwhile
    leader.cycle()
    world.settle()


@scenario()
def deposed_leader_alone(world: World) -> None:
    """The same, and its successor has written nothing yet: only the fence keeps the late write out."""
    requests_last(world)
    world.deploy("C")
    until(world, S.WITHDRAWING)
    world.edges["edge-1"].varnish.end()
    leader = world.replicas[world.promises.leader]
    successor = next(r for r in world.replicas.values() if r is not leader)

    def meanwhile() -> None:
        for part in (leader, *world.edges.values()):
            part.expire()
        successor.cycle()

    for part in world.edges.values():
        part.cycle()
    assert leader.session is not None
    leader.session.faults.pause_before_write, leader.session.faults.meanwhile = True, meanwhile
    leader.cycle()
    world.settle()


@scenario()
def leader_is_back_before_its_session_ends(world: World) -> None:
    """The leader is killed and back at once: it waits for its own former session to expire, and then goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.replicas[world.promises.leader].kill()
    world.rounds(3)
    assert world.rollout().state is S.INSTALLING  # type: ignore[union-attr]
    world.settle()


@scenario()
def leader_changes_in_a_ramp(world: World) -> None:
    """The leader dies in a ramp's step; the successor, whose clock is another, holds it anew."""
    world.deploy("C", ramp=(10, 50), hold=20.0)
    until(world, S.RAMPING)
    world.rounds(5)
    leader = world.replicas[world.promises.leader]
    leader.kill()
    leader.expire()
    world.rounds(10, idle=[leader.name])
    world.settle()


@scenario()
def zookeeper_away(world: World) -> None:
    """ZooKeeper is away for a while, in the middle of a release: nothing moves, then it goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.server.up = False
    world.rounds(30)
    world.server.up = True
    world.settle()


@scenario()
def sessions_expire(world: World) -> None:
    """ZooKeeper forgets every session at once: no edge believes that all hosts are gone."""
    for part in world.parts():
        part.expire()
    world.rounds(2, idle=list(world.machines))
    world.settle()


@scenario()
def candidate_twice(world: World) -> None:
    """A replica never heard that it is a candidate, asks a server that lags behind, and makes itself one again."""
    world.deploy("C")
    until(world, S.INSTALLING)
    for replica in world.replicas.values():
        replica.expire()
    first = next(iter(world.replicas.values()))
    assert first.session is not None
    first.session.faults.lose_in, first.session.faults.behind = 0, 1
    first.cycle()
    first.cycle()
    world.settle()
