"""What operators do day by day: releases, ramps, previews, a service that is deployed in place."""

from __future__ import annotations

from fleet.model import RolloutState as S
from tests.proof.scenarios.telling import requests_last, scenario, until
from tests.proof.world import World


@scenario(before="")
def first_deploy(world: World) -> None:
    """The first version of a service: nothing is served that could suffer, so all hosts install at once."""
    world.deploy("A")
    world.settle()


@scenario()
def third_release(world: World) -> None:
    """An ordinary release: A is withdrawn, drained, replaced by C on the hosts; C is offered, warm, and the default."""
    requests_last(world)
    world.deploy("C")
    world.rounds(4)
    world.edges["edge-1"].varnish.end()
    world.settle()


@scenario()
def redeploy(world: World) -> None:
    """What is the default already is done at once; what is served beside it is staged and committed."""
    world.deploy("B")
    world.settle()
    world.deploy("A")
    world.settle()


@scenario()
def ramp(world: World) -> None:
    """A ramp: one step ends by its hold, the next because somebody says so."""
    world.deploy("C", ramp=(1, 10, 100), hold=20.0)
    until(world, S.RAMPING)
    world.rounds(22)
    world.ask("resume")
    world.settle()


@scenario()
def ramp_by_verdicts(world: World) -> None:
    """A ramp whose steps wait for who compares the versions: undecided, then passed, and failed at the next step."""
    world.deploy("C", ramp=(1, 10, 50), hold="verdict")
    until(world, S.RAMPING)
    world.rounds(200)
    world.verdict("undecided", "41 requests of C are too few", 1)
    world.rounds(2)
    world.verdict("pass", "errors 0.11 % against 0.12 %", 1)
    world.verdict("pass", "said twice", 10)
    world.rounds(3)
    world.verdict("fail", "errors 2.3 % against 0.12 %", 10)
    world.settle()


@scenario()
def preview(world: World) -> None:
    """Whoever carries the token sees the version that is not the default; the token ends with its time."""
    world.preview("A", seconds=30.0)
    world.rounds(40)
    world.settle()


@scenario(config={"when_busy": "queue"})
def queued(world: World) -> None:
    """One waits while another is under way; a newer one takes its place; what was before comes to its end first."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.deploy("D")
    world.rounds(2)
    world.deploy("E")
    world.settle(rounds=200)


@scenario(config={"strategy": "inplace"}, before="A")
def in_place(world: World) -> None:
    """A service with one slot: one mixed pool while hosts restart, a host at a time."""
    world.deploy("B")
    world.settle()


@scenario()
def driven_by_hand(world: World) -> None:
    """A deploy job drives the steps itself: withdraw, offer, default; and back."""
    world.by_hand("withdraw", "A")
    world.rounds(2)
    world.by_hand("offer", "A")
    world.rounds(2)
    world.by_hand("default", "A")
    world.settle()
    world.by_hand("default", "B")
    world.settle()
