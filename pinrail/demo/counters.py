"""The edges' own counters: reads ``/metrics`` and turns it into what ``check.compare`` wants. Owns nothing else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from pinrail.demo.check import EdgeCounts

REQUESTS = "pinrail_edge_requests_total"
FLIPS = "pinrail_edge_flips_total"


#: One edge's counters of one service: metric and labels -> count.
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], int]


def parse(text: str, service: str) -> Series:
    """Raises ValueError for text that is not the exposition format."""
    return {
        (sample.name, frozenset(sample.labels.items())): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in (REQUESTS, FLIPS) and sample.labels.get("service") == service
    }


def since(now: Series, before: Series) -> EdgeCounts:
    """What was counted in between. A series that has gone meanwhile, with the version it was of, counts for nothing."""
    requests = flips = 0
    outcomes: Counter[str] = Counter()
    for (name, labels), count in now.items():
        more = count - before.get((name, labels), 0)
        if name == FLIPS:
            flips += more
        else:
            requests += more
            outcomes[dict(labels).get("outcome", "")] += more
    return EdgeCounts(requests, dict(outcomes), flips)


async def read(edges: Mapping[str, str], service: str) -> dict[str, Series]:
    """Counters by edge; an edge that does not answer is left out. ``edges``: name -> URL of its metrics."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

        async def one(url: str) -> Series | None:
            try:
                async with session.get(url) as response:
                    return parse(await response.text(), service) if response.status == 200 else None
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                return None

        found = await asyncio.gather(*(one(url) for url in edges.values()))
    return {name: counts for name, counts in zip(edges, found, strict=True) if counts is not None}


async def settled(
    edges: Mapping[str, str],
    service: str,
    before: Mapping[str, Series],
    different: Callable[[Mapping[str, EdgeCounts]], list[str]],
    *,
    seconds: float,
) -> list[str]:
    """What is still different after waiting for the counters (they are read in chunks) at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        now = await read(edges, service)
        found = different({name: since(c, before.get(name, {})) for name, c in now.items()})
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.3)
