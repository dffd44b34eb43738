"""The order of things, on fake edges and a fake barrier service that a test makes refuse, fail or stall."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from fleet.loop import Trouble
from fleet.model import Rollout, RolloutEvent, RolloutState
from pinrail.demo.browser import Target
from pinrail.demo.check import Way, promises
from pinrail.demo.load import Size
from pinrail.demo.result import Way as WayResult
from pinrail.demo.sequence import Course, Pauses, Refused, follow, steps
from tests.demo.fake import FakeEdge, FakeFleet

S = RolloutState
FAST = Pauses(before=0.4, after=0.4, deadline=1.0, look=0.01, settle=1.0)


def event(state: S, seconds: float | None, text: str = "") -> RolloutEvent:
    return RolloutEvent(at=0, state=state, text=text, epoch=1, seconds=seconds)


HISTORY = (
    event(S.QUEUED, None),
    event(S.WITHDRAWING, 0.1),
    event(S.INSTALLING, 0.5),
    event(S.OFFERING, 3.0),
    event(S.SWITCHED, 1.0),
    event(S.SWITCHED, 0.2, "every edge has switched"),
)


@dataclass
class FakeControl:
    """Does at once what the barrier service takes seconds for; ``trouble`` names what goes wrong, at which build."""

    fleet: FakeFleet
    trouble: tuple[str, str] = ("", "")
    rollouts: list[Rollout] = field(default_factory=list)
    nothing: bool = False

    def default(self) -> str | None:
        return None if self.nothing else self.fleet.default

    def start(self, build: str) -> int:
        kind, where = self.trouble
        if build == where and kind == "refused":
            raise Refused("ngapp has no build c")
        if build == where and kind == "away":
            self.trouble = ("", "")
            raise Trouble("the barrier service does not answer")
        if build == where and kind == "gone":
            raise Trouble("the barrier service does not answer")
        changes: dict[str, object] = {"state": S.SWITCHED, "done": True, "history": HISTORY}
        if build == where:
            changes = {
                "failed": {"state": S.FAILED, "done": True, "history": (event(S.FAILED, 1.0, "given up"),)},
                "stalled": {"state": S.OFFERING, "done": False, "stalled": ("edge-2 is missing",)},
                "paused": {"state": S.PAUSED, "done": False, "failures": {"host-1": "disk full"}},
            }[kind]
        gone = tuple(v for v in self.fleet.serving if v != self.fleet.default)
        self.fleet.release(build)
        self.rollouts.append(
            Rollout(
                number=len(self.rollouts) + 1,
                service="ngapp",
                build=build,
                digest="",
                by="demo",
                withdrawn=gone,
                **changes,  # type: ignore[arg-type]
            )
        )
        return len(self.rollouts)

    def rollback(self, number: int) -> int:
        self.fleet.rollback()
        last = self.rollouts[-1]
        back = (*last.history, event(S.ROLLING_BACK, 99.0), event(S.ROLLED_BACK, 0.02))
        self.rollouts[-1] = last.model_copy(update={"state": S.ROLLED_BACK, "history": back})
        return number

    def look(self, number: int) -> Rollout:
        return self.rollouts[number - 1]


def run(
    trouble: tuple[str, str] = ("", ""), *, rollback: bool = True, nothing: bool = False
) -> tuple[WayResult, FakeControl, list[str]]:
    said: list[str] = []

    async def main() -> tuple[WayResult, FakeControl]:
        fleet = FakeFleet()
        control = FakeControl(fleet, trouble, nothing=nothing)
        async with FakeEdge(fleet, "edge-1") as one, FakeEdge(fleet, "edge-2") as two:
            edges = {e.name: e.url for e in (one, two)}
            course = Course(
                service="ngapp",
                target=Target(Way.PINNED, edges),
                metrics={name: f"{url}/metrics" for name, url in edges.items()},
                builds=[("A", "b"), ("B", "c"), ("C", "d")],
                rollback=rollback,
                pauses=FAST,
                size=Size(browsers=6, think=0.004, ramp_up=0.01),
            )
            return await follow(course, control, lambda what, _: said.append(what)), control

    way, control = asyncio.run(main())
    return way, control, said


def broken(way: WayResult) -> dict[str, str]:
    return {p.name: p.broken for p in promises(way.judged, way.releases, way.different) if p.broken}


def test_three_releases_and_a_rollback_under_load_keep_every_promise() -> None:
    way, _, said = run()
    assert broken(way) == {}
    assert [(r.name, r.build, r.withdrawn) for r in way.releases] == [
        ("A", "b", ()),
        ("B", "c", ("a",)),
        ("C", "d", ("b",)),
        ("rollback", "c", ()),
    ]
    assert all(c.requests for c in way.judged.counts)
    assert way.base == "a"
    assert said[:2] == ["steady load", "release A (b)"]
    assert said[-2:] == ["rollback of d", "comparing with the edges' counters"]


def test_without_a_rollback_the_last_release_ends_it() -> None:
    way, _, _ = run(rollback=False)
    assert [r.name for r in way.releases] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("refused", "ngapp has no build c"),
        ("gone", "the barrier service does not answer"),
        ("failed", "failed: given up"),
        ("stalled", "still offering after 1 s: offering: edge-2 is missing"),
        ("paused", "still paused after 1 s: paused: host-1: disk full"),
    ],
)
def test_a_release_that_does_not_finish_ends_the_course_and_is_told(kind: str, words: str) -> None:
    way, control, _ = run((kind, "c"))
    assert [(r.name, r.ended is None, r.error) for r in way.releases] == [("A", False, None), ("B", True, words)]
    assert f"B (c) did not finish: {words}" in broken(way)["finished"]
    assert broken(way)["rollback"] == "there was none"
    assert "d" not in [r.build for r in control.rollouts]


def test_a_barrier_service_that_is_away_for_a_moment_is_asked_again() -> None:
    way, _, _ = run(("away", "c"))
    assert broken(way) == {}


def test_a_service_with_nothing_deployed_is_said() -> None:
    with pytest.raises(Trouble, match="ngapp has nothing deployed"):
        run(nothing=True)


def rollout(*history: RolloutEvent) -> Rollout:
    return Rollout(number=1, service="ngapp", build="b", digest="", by="", history=history)


def test_a_release_s_steps_are_how_long_each_state_took() -> None:
    assert steps(rollout(*HISTORY), rollback=False) == {
        "queued": 0.1,
        "withdrawing": 0.5,
        "installing": 3.0,
        "offering": 1.0,
        "switched": 0.2,
    }


def test_a_rollback_s_steps_are_only_its_own() -> None:
    more = (event(S.ROLLING_BACK, 99.0), event(S.ROLLED_BACK, 0.02))
    assert steps(rollout(*HISTORY, *more), rollback=True) == {"rolling_back": 0.02}


def test_a_step_whose_writer_was_another_has_no_seconds() -> None:
    assert steps(rollout(event(S.QUEUED, None), event(S.INSTALLING, None)), rollback=False) == {}
