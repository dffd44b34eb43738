"""Releases of the sample service through the fleet in containers, under load that comes through its load balancer.

Clients, judge and promises are the demo's. Here clients ask one address; the load balancer says in a header which
edge it chose, so that what they saw can still be compared with what each edge counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinrail.demo import check
from pinrail.demo.browser import Target
from pinrail.demo.check import Promise, Way
from pinrail.demo.ground import LocalGround
from pinrail.demo.load import Size
from pinrail.demo.result import Way as Seen
from pinrail.demo.result import way_as_json
from pinrail.demo.sequence import Course, Pauses, Say, follow
from pinrail.local.state import FleetState

#: haproxy.cfg sets it.
CHOSEN = "x-edge"


@dataclass(frozen=True)
class Found:
    """What clients saw, and what is to be said of it."""

    seen: Seen
    promises: tuple[Promise, ...]

    @property
    def ok(self) -> bool:
        return all(p.broken is None for p in self.promises)

    def as_json(self) -> dict[str, Any]:
        broken = [f"{p.name}: {p.sentence}: {p.broken}" for p in self.promises if p.broken is not None]
        return {**way_as_json(self.seen), "ok": self.ok, "broken": broken}


def target(balancer: str) -> Target:
    return Target(Way.PINNED, {"balancer": balancer}, chosen=CHOSEN)


async def roll(
    fleet: FleetState, balancer: str, builds: Sequence[str], size: Size, say: Say, pauses: Pauses | None = None
) -> Found:
    """Publish ``builds``, release one after the other, take the last one back. Something must be deployed already.

    Raises Trouble.
    """
    with LocalGround(fleet) as ground:
        say("publishing the builds", None)
        for build in builds:
            await asyncio.to_thread(ground.publish, Way.PINNED, build)
        course = Course(
            service=ground.service(Way.PINNED),
            target=target(balancer),
            metrics=ground.metrics,
            builds=[(chr(ord("A") + n), build) for n, build in enumerate(builds)],
            rollback=True,
            pauses=pauses or Pauses(),
            size=size,
        )
        seen = await follow(course, ground.control(Way.PINNED), say)
    return Found(seen, tuple(check.promises(seen.judged, seen.releases, seen.different)))
