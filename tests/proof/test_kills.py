"""Kill the leader anywhere: the successor ends in the same place (I8). Every write of a story, one after the other."""

from __future__ import annotations

import pytest

from tests.proof.edges import models
from tests.proof.scenarios import SCENARIOS, Scenario
from tests.proof.world import World

#: Stories in which somebody leads all the time.
STORIES = (
    *("first_deploy", "third_release", "ramp", "queued", "in_place", "failed_hosts_resumed"),
    *("abort_installing", "abort_offering", "rollback_switched", "rollback_done"),
)
#: ... in which an answer is lost too: the leader lives, and does not know whether it has written.
DOUBTS = ("third_release", "abort_installing", "queued")


def _end(world: World) -> tuple[object, ...]:
    """Where it ended, but for how often somebody had to write."""
    plan, rollout = world.plan(), world.rollout()
    running = sorted((h.name, p.build) for h in world.machines.values() for p in h.machine.pools.values())
    return (plan.default, plan.serving, plan.generation, plan.staged, rollout and rollout.state, running)


def _play(scenario: Scenario, kill_at: int | None, lose: bool) -> tuple[tuple[object, ...], int]:
    """The end, and how many writes the leaders made. The leader dies, or loses an answer, at that write."""
    world = scenario.world()  # what was released before is not counted
    written = 0

    def count(session: object, *_: object) -> None:
        nonlocal written
        name = getattr(session, "name", "")
        if name not in world.replicas:
            return
        if written == kill_at:
            faults = world.replicas[name].session.faults  # type: ignore[union-attr]
            faults.kill_in, faults.lose_in = (None, 0) if lose else (1, None)
        written += 1

    world.server.watchers.append(count)
    original = world.round

    def round_(*args: object, **kwargs: object) -> None:
        original(*args, **kwargs)  # type: ignore[arg-type]
        for replica in world.replicas.values():
            if replica._controller is None:
                replica.expire()

    world.round = round_  # type: ignore[method-assign]
    scenario.play(world)
    return _end(world), written


@pytest.mark.parametrize(("name", "lose"), [*((s, False) for s in STORIES), *((s, True) for s in DOUBTS)])
def test_the_successor_ends_in_the_same_place(name: str, lose: bool) -> None:
    with models():
        wanted, writes = _play(SCENARIOS[name], None, lose)
        assert writes > 3
        for number in range(writes):
            ended, _ = _play(SCENARIOS[name], number, lose)
            assert ended == wanted, f"write {number} of {writes}, {'answer lost' if lose else 'killed'}"
