"""What both engines are put through: a fleet of two edges and two hosts, and releases rolled through it under load."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from pinrail.demo.check import Way
from pinrail.demo.ground import LocalGround
from pinrail.demo.load import Size
from pinrail.demo.result import Way as WayResult
from pinrail.demo.sequence import Course, Pauses, follow
from pinrail.local import state
from pinrail.local.state import FleetState
from tests.compose import dashboards
from tests.local.conftest import left_of, run


def fleet(directory: Path, *options: object) -> Iterator[FleetState]:
    """The first build of the sample service is deployed; at the end nothing is left of it."""
    up = run("up", "--edges", 2, "--hosts", 2, "--dir", directory, *options, seconds=300)
    assert up.returncode == 0, up.stderr
    found = state.load(directory)
    assert found is not None
    yield found
    down = run("down", "--dir", directory, seconds=120)
    assert down.returncode == 0, down.stderr
    assert left_of(directory) == []


def releases(fleet: FleetState, builds: Sequence[tuple[str, str]]) -> WayResult:
    """One after the other, and the last one taken back."""

    def say(*_: object) -> None:
        pass

    with LocalGround(fleet) as ground:
        for _, build in builds:
            ground.publish(Way.PINNED, build)
        course = Course(
            service=ground.service(Way.PINNED),
            target=ground.target(Way.PINNED),
            metrics=ground.metrics,
            builds=builds,
            rollback=True,
            pauses=Pauses(before=2.0, after=2.0),
            size=Size(browsers=12),
        )
        return asyncio.run(follow(course, ground.control(Way.PINNED), say))


def logs(fleet: FleetState, *words: object) -> list[dict[str, Any]]:
    """What ``pinrail logs`` shows of our own parts."""
    done = run("logs", "--json", "--since", "1h", *words, "--dir", fleet.directory)
    assert done.returncode == 0, done.stderr
    return [line for line in map(json.loads, done.stdout.splitlines()) if "pairs" in line]


def in_order(lines: Sequence[dict[str, Any]], *wanted: str) -> None:
    """``wanted`` are found in the lines' texts and pairs, each after the one before it."""
    texts = [" ".join((line["text"], *(f"{k}={v}" for k, v in line["pairs"].items()))) for line in lines]
    at = 0
    for words in wanted:
        found = next((i for i, text in enumerate(texts) if i >= at and words in text), None)
        assert found is not None, f"{words!r} is not among:\n" + "\n".join(texts[at:])
        at = found + 1


def prometheus(fleet: FleetState, query: str) -> list[Any]:
    """The series that a query finds in the last hour. Fails with Prometheus' words where it is no query."""
    now = time.time()
    asked = {"query": query, "start": now - 3600, "end": now, "step": 5}
    answer = httpx.get(f"{fleet.prometheus}/api/v1/query_range", params=asked, timeout=30, trust_env=False).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    found: list[Any] = answer["data"]["result"]
    return found


def empty_queries(fleet: FleetState) -> list[str]:
    """The queries of the Grafana dashboards that find nothing in this fleet's Prometheus."""
    values = {"service": "ngapp", "edge": fleet.edges[0].id, "datasource": "-"}
    asked = {q for path in dashboards.FILES for q in dashboards.queries(dashboards.load(path))}
    assert len(asked) > 30
    return sorted(q for q in asked if not prometheus(fleet, dashboards.filled(q, values)))
