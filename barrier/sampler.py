"""Keeps the last hour of flip-flops in memory: asks every living edge in rounds, and notes the steps of rollouts.

Every replica does so by itself. It decides nothing: without it rollouts go on as they do. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from anyio import to_thread

from barrier import snapshot
from barrier.flips import Counts, FlipsView, Mark, Silent, Window, read
from barrier.hub import Hub
from barrier.scrape import NoAnswer, Scraper
from barrier.snapshot import parse
from barrier.store import Store
from fleet import log, paths
from fleet.loop import Trouble
from fleet.model import EdgeInfo, Plan, Rollout

_log = log.get()

#: Seconds from the beginning of one round to the next.
EVERY = 5.0
#: Seconds that changes in ZooKeeper are gathered before they are looked at.
GATHER = 0.3


class Sampler:
    def __init__(
        self, store: Store, hub: Hub, *, every: float = EVERY, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._hub = hub
        self._every = every
        self._monotonic = monotonic
        self._window = Window(secrets.token_hex(4), monotonic())
        self._services: tuple[str, ...] = ()
        #: The rollout of each service that was looked at last; 0 for none yet.
        self._followed: dict[str, int] = {}
        #: Events of a rollout's history that have been seen, by service and number.
        self._seen: dict[tuple[str, int], int] = {}

    @property
    def key(self) -> tuple[str, int]:
        return self._window.key

    def view(self, service: str, seen: tuple[str, int] | None = None) -> FlipsView:
        return self._window.view(service, self._monotonic(), seen)

    async def run(self) -> None:
        """Until cancelled."""
        scraper = await to_thread.run_sync(Scraper)  # it reads certificates, while requests are waiting
        try:
            while True:
                began = self._monotonic()
                try:
                    await self._round(scraper)
                    await self._steps(began + self._every)
                except Trouble as e:
                    _log.warning(f"flip-flops are not counted now: {e}")
                    await asyncio.sleep(self._every)
        finally:
            await scraper.close()

    async def _round(self, scraper: Scraper) -> None:
        services, edges, living = await to_thread.run_sync(self._fleet)
        self._services = services
        self._followed = {s: n for s, n in self._followed.items() if s in services}
        self._seen = {k: n for k, n in self._seen.items() if self._followed.get(k[0]) == k[1]}
        texts = await asyncio.gather(*(self._ask(scraper, edges[n]) for n in living))
        said: dict[str, Counts] = {}
        silent = [Silent(edge=n, why="its agent is away") for n in edges if n not in living]
        for name, text in zip(living, texts, strict=True):
            if isinstance(text, str):
                said[name] = await to_thread.run_sync(read, text, name, frozenset(services))
            else:
                silent.append(Silent(edge=name, why=str(text)))
        self._window.add(self._monotonic(), said, silent, services)

    @staticmethod
    async def _ask(scraper: Scraper, info: EdgeInfo) -> str | NoAnswer:
        try:
            return await scraper(info)
        except NoAnswer as e:
            return e

    def _fleet(self) -> tuple[tuple[str, ...], dict[str, EdgeInfo], tuple[str, ...]]:
        fleet = self._store.fleet()
        return tuple(self._store.services()), snapshot.read_edges(self._store.recall, fleet), fleet.alive

    async def _steps(self, until: float) -> None:
        """Note what rollouts do, as soon as they do it, for the rest of the round."""
        while True:
            moment = self._hub.now()
            for service in self._services:
                await self._note(service)
            left = until - self._monotonic()
            if left <= 0:
                return
            await self._hub.until(moment, left)
            await asyncio.sleep(min(GATHER, max(0.0, until - self._monotonic())))

    async def _note(self, service: str) -> None:
        """Mark what is new in the history of the rollout that is active or was last, and of the one looked at before.

        What had happened when this process first looked is not marked: nobody here knows when that was.
        """
        before = self._followed.get(service)
        try:
            rollouts = await to_thread.run_sync(self._latest, service, before)
        except snapshot.BadPayload as e:
            _log.warning(f"steps of {service} are not noted: {e}", service=service)
            return
        for rollout in rollouts:
            key, length = (service, rollout.number), len(rollout.history)
            known = self._seen.get(key, 0 if before is not None else length)
            self._seen[key] = length
            for event in rollout.history[known:length]:
                mark = Mark(
                    at=round(self._monotonic(), 1),
                    rollout=rollout.number,
                    build=rollout.build,
                    state=event.state.value,
                    text=event.text,
                )
                self._window.mark(service, mark)
        self._followed[service] = rollouts[-1].number if rollouts else 0

    def _latest(self, service: str, before: int | None) -> list[Rollout]:
        zk = self._store.zk
        lock = zk.get(paths.active_rollout(service), watch=True)
        if lock is not None:
            number: int | None = snapshot.lock_number(lock, paths.active_rollout(service))
        else:
            node = zk.get(paths.plan(service), watch=True)
            number = parse(Plan, node, paths.plan(service)).rollout if node else None
        wanted = sorted({n for n in (before, number) if n}, key=lambda n: n == number)
        found = [self._store.rollout(service, n, watch=n == number) for n in wanted]
        return [r for r in found if r is not None]
