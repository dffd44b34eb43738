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


def parse(text: str, service: str) -> EdgeCounts:
    """One edge's counts of ``service``. Raises ValueError for text that is not the exposition format."""
    requests = flips = 0
    outcomes: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("service") != service:
                continue
            if sample.name == REQUESTS:
                requests += int(sample.value)
                outcomes[sample.labels.get("outcome", "")] += int(sample.value)
            elif sample.name == FLIPS:
                flips += int(sample.value)
    return EdgeCounts(requests, dict(outcomes), flips)


async def read(edges: Mapping[str, str], service: str) -> dict[str, EdgeCounts]:
    """Counts by edge; an edge that does not answer is left out. ``edges``: name -> URL of its metrics."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

        async def one(url: str) -> EdgeCounts | None:
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
    before: Mapping[str, EdgeCounts],
    different: Callable[[Mapping[str, EdgeCounts]], list[str]],
    *,
    seconds: float,
) -> list[str]:
    """What is still different after waiting for the counters (they are read in chunks) at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        now = await read(edges, service)
        found = different({name: c.since(before.get(name, EdgeCounts())) for name, c in now.items()})
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.3)
