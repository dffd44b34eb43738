"""One way, once: load, releases under it, and what was seen. Owns the order and the pauses; judges nothing itself.

The calls that change the fleet go through ``Control`` and are short, so that an interruption never waits for a rollout.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from fleet.loop import Trouble
from fleet.model import Rollout, RolloutState
from pinrail.demo import check, counters
from pinrail.demo.browser import Target
from pinrail.demo.check import Release
from pinrail.demo.load import Size, load
from pinrail.demo.observe import Kind, Log
from pinrail.demo.result import Way


class Refused(Trouble):
    """The barrier service said no; asking again would change nothing."""


class Control(Protocol):
    """What the demo asks of the fleet's barrier service, for one service. Each call is short and may be repeated.

    Raises Refused, and Trouble where the service is away for a while.
    """

    def default(self) -> str | None:
        """The build that requests without a pin get; None where nothing is deployed."""
        ...

    def start(self, build: str) -> int:
        """Begin a rollout; its number."""
        ...

    def rollback(self, number: int) -> int:
        """Take that rollout back; the number of the rollout to watch for it."""
        ...

    def look(self, number: int) -> Rollout: ...


@dataclass(frozen=True)
class Pauses:
    """Seconds of steady load before the first release and after each, and how long a release may take."""

    before: float = 4.0
    after: float = 3.5
    deadline: float = 120.0
    look: float = 0.1
    #: How long the edges' counters may take to catch up.
    settle: float = 15.0


@dataclass(frozen=True)
class Course:
    """What is to be done: the builds in their order, and whether the last is taken back under load."""

    service: str
    target: Target
    #: Edge name -> URL of its metrics.
    metrics: Mapping[str, str]
    builds: Sequence[tuple[str, str]]
    rollback: bool
    pauses: Pauses = Pauses()
    size: Size = field(default_factory=Size)
    seed: int = 1


T = TypeVar("T")
#: What is going on now, and the records so far where there are any.
Say = Callable[[str, Log | None], None]


async def follow(course: Course, control: Control, say: Say) -> Way:
    """Run the course. A release that does not finish ends it early and is in the result, with the reason."""
    base = await asyncio.to_thread(control.default)
    if base is None:
        raise Trouble(f"{course.service} has nothing deployed that a release could replace")
    log, origin = Log(), time.monotonic()
    before = await counters.read(course.metrics, course.service)
    releases: list[Release] = []

    def clock() -> float:
        return time.monotonic() - origin

    async with load(course.target, course.size, log, clock, course.seed):
        say("steady load", log)
        await asyncio.sleep(course.pauses.before)
        number = None
        for name, build in course.builds:
            say(f"release {name} ({build})", log)
            release, number = await _release(name, build, control, clock, course.pauses)
            releases.append(release)
            if release.ended is None:
                break
            await _seen(release, log, clock, course.pauses)
        if course.rollback and number is not None and releases[-1].ended is not None:
            say(f"rollback of {releases[-1].build}", log)
            releases.append(await _rollback(number, releases, base, control, clock, course.pauses))
            await _seen(releases[-1], log, clock, course.pauses)
    say("comparing with the edges' counters", log)
    judged = check.judge(log.records, releases, base, course.target.way)
    different = await counters.settled(
        course.metrics,
        course.service,
        before,
        lambda counted: check.compare(course.target.way, log.records, judged, counted),
        seconds=course.pauses.settle,
    )
    return Way(course.service, base, tuple(releases), tuple(log.records), judged, tuple(different))


async def _release(
    name: str, build: str, control: Control, clock: Callable[[], float], pauses: Pauses
) -> tuple[Release, int | None]:
    release = Release(name, build, clock())
    try:
        number = await _patiently(lambda: control.start(build), clock, release.began + pauses.deadline, pauses)
        return await _watch(release, number, control, clock, pauses), number
    except Trouble as e:
        return replace(release, error=str(e)), None


async def _rollback(
    number: int,
    releases: Sequence[Release],
    base: str,
    control: Control,
    clock: Callable[[], float],
    pauses: Pauses,
) -> Release:
    back_to = releases[-2].build if len(releases) > 1 else base
    release = Release("rollback", back_to, clock(), rollback=True)
    try:
        until = release.began + pauses.deadline
        watched = await _patiently(lambda: control.rollback(number), clock, until, pauses)
        return await _watch(release, watched, control, clock, pauses)
    except Trouble as e:
        return replace(release, error=str(e))


async def _watch(
    release: Release, number: int, control: Control, clock: Callable[[], float], pauses: Pauses
) -> Release:
    """Until the rollout is done, or its deadline."""
    until = clock() + pauses.deadline
    while True:
        rollout = await _patiently(lambda: control.look(number), clock, until, pauses)
        gone = () if release.rollback else rollout.withdrawn
        release = replace(release, withdrawn=gone, steps=steps(rollout, release.rollback))
        if reached(rollout, release.rollback):
            return replace(release, ended=clock())
        if rollout.done and not (release.rollback and rollout.state is RolloutState.SWITCHED):
            return replace(release, error=_why(rollout))
        if clock() > until:
            return replace(release, error=f"still {rollout.state} after {pauses.deadline:g} s: {_why(rollout)}")
        await asyncio.sleep(pauses.look)


async def _seen(release: Release, log: Log, clock: Callable[[], float], pauses: Pauses) -> None:
    """Steady load for a while; where the machine is slow, until somebody was given a page of the release."""
    until = clock() + pauses.after + pauses.settle
    await asyncio.sleep(pauses.after)
    while release.ended is not None and clock() < until:
        since = release.ended
        if any(r.kind is Kind.DOCUMENT and r.body == release.build and r.began > since for r in reversed(log.records)):
            return
        await asyncio.sleep(pauses.look)


async def _patiently(call: Callable[[], T], clock: Callable[[], float], until: float, pauses: Pauses) -> T:
    """Ask again while nobody answers: whoever drives the rollout may just be replaced."""
    while True:
        try:
            return await asyncio.to_thread(call)
        except Refused:
            raise
        except Trouble:
            if clock() > until:
                raise
        await asyncio.sleep(pauses.look)


def reached(rollout: Rollout, rollback: bool) -> bool:
    goal = {RolloutState.ROLLED_BACK} if rollback else {RolloutState.SWITCHED}
    return rollout.done and rollout.state in goal


def _why(rollout: Rollout) -> str:
    words = [*rollout.stalled, *(f"{host}: {text}" for host, text in sorted(rollout.failures.items()))]
    if not words and rollout.history:
        words = [rollout.history[-1].text]
    return f"{rollout.state}: {'; '.join(words)}" if words else str(rollout.state)


def steps(rollout: Rollout, rollback: bool) -> dict[str, float]:
    """Seconds in each state, by the history's own monotonic clock: an event tells how long the state before it took.

    Of a rollback only what came after the release that it takes back.
    """
    history = list(rollout.history)
    if rollback:
        ended = [i for i, event in enumerate(history) if event.state is RolloutState.SWITCHED]
        history = history[ended[-1] :] if ended else history
    found: dict[str, float] = {}
    for earlier, later in itertools.pairwise(history):
        if later.seconds is not None and not (rollback and earlier.state is RolloutState.SWITCHED):
            found[earlier.state.value] = found.get(earlier.state.value, 0.0) + later.seconds
    return found
