"""The demo from beginning to end, on any ground that can publish and roll out. Owns the order of the two ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from fleet.files import write_atomic
from fleet.loop import Trouble
from fleet.model import RolloutState
from pinrail.demo import check
from pinrail.demo.browser import Target
from pinrail.demo.check import Way
from pinrail.demo.load import Size
from pinrail.demo.picture import draw
from pinrail.demo.result import Result
from pinrail.demo.sequence import Control, Course, Pauses, Say, follow

RELEASES = ("A", "B", "C")


class Ground(Protocol):
    """A running fleet, as the demo needs it. Calls block for seconds at most; failures are Trouble."""

    #: Edge name -> URL of its metrics.
    @property
    def metrics(self) -> Mapping[str, str]: ...

    def service(self, way: Way) -> str: ...

    def target(self, way: Way) -> Target: ...

    def configure(self, way: Way) -> None:
        """Make the service of that way exist."""
        ...

    def publish(self, way: Way, build: str) -> None: ...

    def control(self, way: Way) -> Control: ...

    def done(self, way: Way) -> None:
        """Remove what that way alone needed."""
        ...


async def demonstrate(
    ground: Ground,
    tag: str,
    say: Callable[[Way], Say],
    *,
    picture: Path | None,
    pauses: Pauses | None = None,
    size: Size | None = None,
) -> Result:
    """Both ways, one after the other, under the same load. ``tag`` makes the builds' names new to this fleet."""
    pauses, size = pauses or Pauses(), size or Size()
    builds = [(name, f"{tag}-{name.lower()}") for name in RELEASES]
    seen = {}
    for way in (Way.ROLLING, Way.PINNED):
        control = await _prepare(ground, way, tag, builds, say(way), pauses)
        course = Course(
            service=ground.service(way),
            target=ground.target(way),
            metrics=ground.metrics,
            builds=builds,
            rollback=way is Way.PINNED,
            pauses=pauses,
            size=size,
        )
        seen[way] = await follow(course, control, say(way))
        await asyncio.to_thread(ground.done, way)
    rolling, pinned = seen[Way.ROLLING], seen[Way.PINNED]
    if picture is not None:
        write_atomic(picture, draw(rolling, pinned))
    different = [*rolling.different, *pinned.different]
    return Result(rolling, pinned, tuple(check.promises(pinned.judged, pinned.releases, different)), picture)


async def _prepare(
    ground: Ground, way: Way, tag: str, builds: list[tuple[str, str]], say: Say, pauses: Pauses
) -> Control:
    """The service, its builds, and something deployed that the first release can replace."""
    say("publishing the builds", None)
    await asyncio.to_thread(ground.configure, way)
    control = ground.control(way)
    first = await asyncio.to_thread(control.default) is None
    for _, build in [*([("", f"{tag}-base")] if first else []), *builds]:
        await asyncio.to_thread(ground.publish, way, build)
    if first:
        say("deploying what the first release will replace", None)
        await _deploy(control, f"{tag}-base", pauses)
    return control


async def _deploy(control: Control, build: str, pauses: Pauses) -> None:
    number = await asyncio.to_thread(control.start, build)
    for _ in range(int(pauses.deadline / pauses.look) + 1):
        rollout = await asyncio.to_thread(control.look, number)
        if rollout.done:
            if rollout.state is not RolloutState.SWITCHED:
                raise Trouble(f"the first deploy of {build} ended {rollout.state}: {rollout.history[-1].text}")
            return
        await asyncio.sleep(pauses.look)
    raise Trouble(f"the first deploy of {build} did not finish in {pauses.deadline:g} s: {'; '.join(rollout.stalled)}")
