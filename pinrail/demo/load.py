"""Many browsers at once: started together, stopped so that no request is cut off. Owns their tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pinrail.demo.browser import TIMEOUT, Browser, Pace, Target, connections
from pinrail.demo.observe import Log


@dataclass(frozen=True)
class Size:
    browsers: int = 30
    #: Mean seconds between two requests of one page, on a machine that answers at once.
    think: float = 0.17
    #: Browsers begin within this many seconds, not all in the same instant.
    ramp_up: float = 1.0


@asynccontextmanager
async def load(target: Target, size: Size, log: Log, clock: Callable[[], float], seed: int) -> AsyncIterator[None]:
    """Browsers run for as long as the block does; leaving it waits for their last answers (bounded by their timeout).

    A browser that breaks is our fault: its error leaves the block.
    """
    stop = asyncio.Event()
    async with connections() as session:
        tasks = [
            asyncio.create_task(
                _one(Browser(n, target, session, log, clock=clock, pace=pace, rng=rng), rng, size, stop)
            )
            for n, rng, pace in _each(size, seed)
        ]
        try:
            yield
            stop.set()
            done, late = await asyncio.wait(tasks, timeout=2 * (TIMEOUT.total or 20))
            for task in done:
                task.result()
            if late:
                raise AssertionError(f"{len(late)} browsers outlived every timeout")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _each(size: Size, seed: int) -> Iterator[tuple[int, random.Random, Pace]]:
    for n in range(size.browsers):
        rng = random.Random(f"{seed}/{n}")  # noqa: S311  (load, not secrets; a seed makes a run repeatable)
        yield n, rng, Pace(size.think, rng)


async def _one(browser: Browser, rng: random.Random, size: Size, stop: asyncio.Event) -> None:
    await asyncio.sleep(rng.uniform(0, size.ramp_up))
    await browser.run(stop)
