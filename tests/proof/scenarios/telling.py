"""How a story is told: what each needs, where it is kept by its name, and what many of them do on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.model import RolloutState as S
from fleet.model import ServiceConfig
from tests.proof.edges import SERVICE
from tests.proof.world import World


@dataclass(frozen=True)
class Scenario:
    name: str
    play: Callable[[World], None]
    config: dict[str, object] = field(default_factory=dict)
    #: How many edges and hosts.
    edges: int = 2
    hosts: int = 3
    #: Builds that are rolled out before the story begins.
    before: str = "AB"

    @property
    def title(self) -> str:
        return (self.play.__doc__ or self.name).strip().splitlines()[0]

    def world(self) -> World:
        world = World(
            ServiceConfig.model_validate({"waves": {"concurrency": 1}, "stall_seconds": 20} | self.config),
            edges=[f"edge-{i + 1}" for i in range(self.edges)],
            hosts=[f"host-{i + 1}" for i in range(self.hosts)],
        )
        for build in self.before:
            world.deploy(build)
            world.settle()
        return world


SCENARIOS: dict[str, Scenario] = {}


def scenario(**fields: object) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def add(play: Callable[[World], None]) -> Callable[[World], None]:
        name = play.__name__
        SCENARIOS[name] = Scenario(name, play, **fields)  # type: ignore[arg-type]
        return play

    return add


def until(world: World, state: S, rounds: int = 60, *, idle: tuple[str, ...] = ()) -> None:
    """Some time passes, until the last rollout is in that state."""
    for _ in range(rounds):
        rollout = world.rollout()
        if rollout is not None and rollout.state is state and rollout.request is None:
            return
        world.round(idle=idle)
    raise AssertionError(f"not {state} after {rounds} rounds: {world.rollout()}")


def requests_last(world: World, edge: str = "edge-1") -> None:
    """One for each version that the edge serves; its drain waits for them."""
    varnish = world.edges[edge].varnish
    for version in routing.serving if (routing := world.edges[edge].routing) else ():
        varnish.begin(SERVICE, version)


def offered_unseen(world: World) -> None:
    """What is being deployed is offered, and edge-1 cannot reach the hosts that have it."""
    until(world, S.INSTALLING)
    until(world, S.OFFERING, idle=("edge-1",))
    world.edges["edge-1"].varnish.probes_stuck = True
