"""Asking hosts whether they are well, as Varnish's probes do: nginx itself only notices a host that fails a request.

One thread, one connection a question. A host is well whose last three answers have two good ones; a new one from its
first good answer on. An answer is good when it is a 200 that bears the stamp of the version.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_WINDOW, _GOOD = 3, 2
#: Longest head of an answer that is read.
_MOST = 65536


@dataclass(frozen=True)
class Target:
    """One host of one version of one service, and how it is asked."""

    service: str
    version: str
    address: str
    port: int
    path: str
    interval: float
    timeout: float
    #: Is an answer without a stamp, or with another one, a good one? ``any``: yes, both.
    stamp: str = "refuse"


class Probes:
    """Runs from ``start`` to ``stop``; ``changed`` is called from its thread when a host's health changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._tasks: dict[Target, asyncio.Task[None]] = {}
        self._health: dict[Target, bool] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def ask(self, targets: Iterable[Target], trusted: Iterable[Target] = ()) -> None:
        """From now on these, and no others. One bad answer says nothing of those that are ``trusted``, not even their
        first: they served before."""
        self._loop.call_soon_threadsafe(self._ask, frozenset(targets), frozenset(trusted))

    def _ask(self, wanted: frozenset[Target], trusted: frozenset[Target]) -> None:
        for target in [t for t in self._tasks if t not in wanted]:
            self._tasks.pop(target).cancel()
            self._health.pop(target, None)
        for target in wanted - self._tasks.keys():
            before = [True] * (_GOOD if target in trusted else _GOOD - 1)
            self._tasks[target] = self._loop.create_task(self._watch(target, deque(before, maxlen=_WINDOW)))

    def health(self) -> Mapping[Target, bool]:
        """Those that have been asked at least once."""
        return dict(self._health)

    async def _watch(self, target: Target, last: deque[bool]) -> None:
        while True:
            last.append(await _good(target))
            well = sum(last) >= _GOOD
            if self._health.get(target) is not well:
                self._health[target] = well
                self._changed()
            # Not all edges and hosts in step.
            await asyncio.sleep(target.interval * random.uniform(0.9, 1.1))  # noqa: S311


async def _good(target: Target) -> bool:
    try:
        async with asyncio.timeout(target.timeout):
            return await _asked(target)
    except (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError):
        return False


async def _asked(target: Target) -> bool:
    reader, writer = await asyncio.open_connection(target.address, target.port, limit=_MOST)
    try:
        host = f"[{target.address}]" if ":" in target.address else target.address
        writer.write(f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return head[0].split(" ")[1:2] == ["200"] and _stamped(head[1:], target)


def _stamped(lines: list[str], target: Target) -> bool:
    stamps = [
        value.strip()
        for name, _, value in (line.partition(":") for line in lines)
        if name.lower() == "x-served-version"
    ]
    if target.stamp == "any" or (target.stamp == "allow" and not stamps):
        return True
    return stamps == [target.version]
