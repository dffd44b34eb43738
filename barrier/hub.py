"""From ZooKeeper's watches to the API's waiting requests: something changed, look again. Carries no data."""

from __future__ import annotations

import asyncio
import contextlib


class Hub:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        #: The process is about to stop: streams end by themselves, at once.
        self.closed = False

    def close(self) -> None:
        """End what waits here for good. From any thread."""
        self.closed = True
        self()

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """The loop that waiting requests run on; None once it ends."""
        self._loop = loop

    def __call__(self, *_: object) -> None:
        """Something changed. From any thread."""
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended in between: nobody waits any more
                loop.call_soon_threadsafe(self._fire)

    def _fire(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    def now(self) -> asyncio.Event:
        """Take this before looking; ``until`` it afterwards. No change in between is missed."""
        return self._event

    @staticmethod
    async def until(moment: asyncio.Event, seconds: float) -> None:
        """Return when anything has changed since ``moment``, or after ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await moment.wait()
