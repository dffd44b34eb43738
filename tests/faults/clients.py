"""The users, all the time: the demo's browsers behind a load balancer that asks each edge's health page.

What counts. A request is *excused* when it got no answer at all from an edge whose varnishd the test had killed or
stopped at that moment; its client asks another edge, and that answer counts. Nothing else is: a refused connection, a
half answer or an error from an edge that was left alone is a failure, and so is any status but 200 from anybody.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import aiohttp

from pinrail.demo import check
from pinrail.demo.browser import Browser, Pace, Page, Target, connections
from pinrail.demo.check import Mark, Release, Way
from pinrail.demo.observe import Kind, Log, Record

#: Seconds between two looks at an edge's health page, and what it has to answer.
LOOK, ANSWER = 0.1, 1.0
BROWSERS, THINK = 8, 0.12


@dataclass
class Injury:
    """The test keeps an edge's varnishd from answering."""

    edge: str
    began: float
    ended: float = float("inf")


class Balancer(Mapping[str, str]):
    """The edges that take traffic. Where none is green all do: refusing everybody would help nobody."""

    def __init__(self, edges: Mapping[str, str]) -> None:
        self._edges = dict(edges)
        self._up = set(edges)
        #: Set when an edge stops answering its health page.
        self.gone = {e: asyncio.Event() for e in edges}

    def _now(self) -> Mapping[str, str]:
        return {e: u for e, u in self._edges.items() if e in self._up} or self._edges

    def __getitem__(self, edge: str) -> str:
        return self._edges[edge]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def edge_of(self, url: str) -> str:
        return next(e for e, u in self._edges.items() if url.startswith(f"{u}/"))

    def lost(self, edge: str) -> None:
        """A connection to it failed: no more requests until its page answers again."""
        self._up.discard(edge)

    async def watch(self, edge: str, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(
                    f"{self._edges[edge]}/.pinrail/health", timeout=aiohttp.ClientTimeout(total=ANSWER)
                ) as answer:
                    (self._up.add if answer.status == 200 else self._up.discard)(edge)
                self.gone[edge].clear()
            except (aiohttp.ClientError, OSError, TimeoutError):
                self._up.discard(edge)
                self.gone[edge].set()
            await asyncio.sleep(LOOK)


class _User(Browser):
    """Asks another edge where the one it asked was injured."""

    clients: Clients
    balancer: Balancer

    async def _fetch(
        self,
        kind: Kind,
        method: str,
        path: str,
        headers: dict[str, str],
        page: Page | None,
        body: bytes | None = None,
    ) -> tuple[Record, object]:
        for _ in range(100):
            record, answer = await super()._fetch(kind, method, path, dict(headers), page, body)
            if record.status or not self.clients.injured(record.edge, record.began):
                return record, answer
            self.balancer.lost(record.edge)
            self.clients.excused.append(record)
            await asyncio.sleep(0.02)
        return replace(record, error=f"no edge took it: {record.error}"), None

    async def _exchange(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, sent: object
    ) -> object:
        """A load balancer does not wait for an edge that it has given up."""
        edge = self.balancer.edge_of(url)
        asked = asyncio.ensure_future(super()._exchange(method, url, headers, body, sent))
        gone = asyncio.ensure_future(self._given_up(edge))
        try:
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise aiohttp.ClientConnectionError("the load balancer gave the edge up")
            return asked.result()
        finally:
            for task in (asked, gone):
                task.cancel()
            await asyncio.gather(asked, gone, return_exceptions=True)

    async def _given_up(self, edge: str) -> None:
        while True:
            await self.balancer.gone[edge].wait()
            if self.clients.injured(edge, self.clients.clock()):
                return
            await asyncio.sleep(LOOK)


class Clients:
    """Browsers in a thread of their own, from ``start`` to ``stop``."""

    def __init__(self, edges: Mapping[str, str], base: str) -> None:
        self._edges = edges
        self._base = base
        self._origin = time.monotonic()
        self._log = Log()
        self._injuries: list[Injury] = []
        self.releases: list[Release] = []
        self.excused: list[Record] = []
        self._thread = threading.Thread(target=self._run, name="clients")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._broke: BaseException | None = None

    # -- the load --

    def clock(self) -> float:
        return time.monotonic() - self._origin

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(90)
        assert not self._thread.is_alive(), "the browsers do not end"
        if self._broke is not None:
            raise self._broke

    def _run(self) -> None:
        try:
            asyncio.run(self._load())
        except BaseException as e:  # noqa: BLE001  (raised again by stop)
            self._broke = e

    async def _load(self) -> None:
        self._loop = asyncio.get_running_loop()
        balancer = Balancer(self._edges)
        async with connections() as session, aiohttp.ClientSession() as probes:
            watches = [asyncio.create_task(balancer.watch(e, probes)) for e in self._edges]
            tasks = []
            for n in range(BROWSERS):
                rng = random.Random(n)
                user = _User(
                    n,
                    Target(Way.PINNED, balancer),
                    session,
                    self._log,
                    clock=self.clock,
                    pace=Pace(THINK, rng),
                    rng=rng,
                )
                user.clients, user.balancer = self, balancer
                tasks.append(asyncio.create_task(user.run(self._stop)))
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in (*tasks, *watches):
                    task.cancel()
                await asyncio.gather(*tasks, *watches, return_exceptions=True)

    # -- injuries --

    def injured(self, edge: str, at: float) -> bool:
        """Was that edge's varnishd kept from answering at any time since ``at``?"""
        return any(i.edge == edge and i.ended >= at for i in self._injuries)

    def hurt(self, edge: str) -> None:
        self._injuries.append(Injury(edge, self.clock()))

    def healed(self, edge: str) -> None:
        for injury in self._injuries:
            if injury.edge == edge:
                injury.ended = min(injury.ended, self.clock())

    # -- the judgement --

    @property
    def count(self) -> int:
        return len(self._log.records)

    def judged(self, since: int) -> list[str]:
        """A sentence for each broken promise among the records from ``since`` on; empty when all were kept."""
        records = self._log.records[since:]
        judged = check.judge(records, self.releases or [Release("", self._base, 0.0, 0.0)], self._base, Way.PINNED)
        return [
            f"{', '.join(sorted(m for m in marks if m is not Mark.FORCED))}: {record}"
            for record, marks in zip(records, judged.marks, strict=True)
            if marks - {Mark.FORCED}
        ]

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """No request of anybody was failed, answered by a wrong version or taken back in the block."""
        if self._broke is not None:
            raise self._broke
        since, excused = self.count, len(self.excused)
        yield
        broken = self.judged(since)
        assert not broken, f"{len(broken)} of {self.count - since} requests:\n" + "\n".join(broken[:12])
        assert self.count - since > 10, "too few requests to have shown anything"
        if not self._injuries:
            assert len(self.excused) == excused
