"""Readings of ZooKeeper shared among everyone who watches the page, so that ten viewers cost what one does.

A reading is given again while nothing has changed and it is young. Reads only. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from anyio import to_thread

from barrier import snapshot
from barrier.hub import Hub
from barrier.overview import PAST, Line, Overview, overview
from barrier.routes_rollouts import waiting
from barrier.snapshot import BadPayload
from barrier.store import Store
from fleet.loop import Trouble

#: Seconds that a reading is good for where no watch says otherwise.
GOOD_SECONDS = 1.9

T = TypeVar("T")


@dataclass
class _Reading(Generic[T]):
    """The last one, and a lock so that it is made once."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    moment: asyncio.Event | None = None
    at: float = 0.0
    value: T | None = None


class Looks:
    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub
        self._lines: _Reading[list[Line]] = _Reading()
        self._services: dict[str, _Reading[Overview]] = {}

    async def lines(self) -> list[Line]:
        """Every service in a line."""
        return await self._fresh(self._lines, self._read_lines)

    async def service(self, name: str) -> Overview:
        """Raises Refused where there is none, Trouble where it cannot be read."""
        known = {line.service for line in await self.lines()}
        self._services = {s: r for s, r in self._services.items() if s in known}
        reading = self._services.setdefault(name, _Reading())
        return await self._fresh(reading, lambda: self._read_service(name))

    async def _fresh(self, reading: _Reading[T], read: Callable[[], T]) -> T:
        self._must_be_connected()
        async with reading.lock:
            moment = self._hub.now()
            young = time.monotonic() - reading.at < GOOD_SECONDS
            if reading.value is None or reading.moment is not moment or not young:
                at = time.monotonic()
                reading.value = await to_thread.run_sync(read)
                reading.moment, reading.at = moment, at
            return reading.value

    def _must_be_connected(self) -> None:
        if not self._store.zk.connected:
            raise Trouble(f"no connection to ZooKeeper at {self._store.zk.address}: nothing moves")

    def _read_lines(self) -> list[Line]:
        return [self._line(name) for name in self._store.services()]

    def _line(self, name: str) -> Line:
        try:
            plan, active = self._store.plan(name), self._store.active(name)
            rollout = self._store.rollout(name, active, watch=True) if active else None
        except BadPayload as e:
            return Line(service=name, trouble=str(e))
        return Line(
            service=name,
            default=plan.default,
            serving=list(plan.serving),
            rollout=active,
            build=rollout.build if rollout else None,
            state=rollout.state if rollout else None,
            stalled=bool(rollout and rollout.stalled),
        )

    def _read_service(self, name: str) -> Overview:
        snap = self._store.read(name, watch=True)
        missing = waiting(snap, snap.rollout) if snap.rollout else []
        infos = snapshot.read_edges(self._store.recall, snap.fleet)
        return overview(snap, infos, self._store.rollouts(name, PAST), missing)
