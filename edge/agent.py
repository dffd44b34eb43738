"""The edge agent: plans and server sets in, what the engine does out, and an acknowledgement of what it really does.

One cycle: read the fleet, settle which members to believe, let the engine take shape, and last write down what was
confirmed. The engine is a Varnish (``edge.engine``) or an nginx (``edge.nginx.engine``). While ZooKeeper is away
nobody's requests are routed otherwise than before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from edge.catalog import Catalog, Service
from edge.config import EdgeConfig
from edge.hooks import Hooks
from edge.lastgood import Good, LastGood, Store
from edge.metrics import Metrics
from edge.page import Page
from edge.presence import Presence
from edge.reading import Reading
from edge.report import Report
from edge.revisit import Revisit
from fleet import log
from fleet.loop import Said, Trouble
from fleet.zk import ZooKeeper, ZooKeeperTrouble

_log = log.get()

#: What an engine wanted of its server, and what that was like at the end.
S = TypeVar("S")


class Engine(Protocol[S]):
    """The server beside an agent, and the only part of it that knows which kind that is."""

    @property
    def trouble(self) -> type[Trouble]:
        """What is raised where the server is away, or does not do what it is told."""

    def taken(self) -> None:
        """The catalog was read anew."""

    def commit(self, services: Sequence[str]) -> None:
        """Use what these have staged, before all else: the instant at which a fleet switches is as long as this takes
        on each edge."""

    def converge(self) -> S:
        """Do what there is to do, and acknowledge it."""

    def alone(self) -> None:
        """ZooKeeper is away: look after the hosts and the page, and route no request otherwise than before."""

    def applied(self, shape: S) -> bool:
        """Do all services go by their latest plan?"""

    def confirmed(self, shape: S) -> tuple[dict[str, Good], Callable[[], None]]:
        """Where all is ``applied``: each service as a restart is to begin with it, and what writes that for the server
        to boot from."""

    def nothing(self, error: str) -> None:
        """The server is away: say so, as whatever was acknowledged holds no more."""

    def sentence(self, shape: S) -> Said: ...


@dataclass(frozen=True)
class Shared:
    """What an engine works with, and does not own."""

    config: EdgeConfig
    catalog: Catalog
    page: Page
    report: Report
    revisit: Revisit
    metrics: Metrics
    hooks: Hooks
    clock: Callable[[], float]
    #: As it was when an agent last wrote it down.
    good: Mapping[str, Good]


class Agent(Generic[S]):
    def __init__(
        self,
        config: EdgeConfig,
        zk: ZooKeeper,
        metrics: Metrics,
        hooks: Hooks,
        wake: Callable[[], None],
        engine: Callable[[Shared], Engine[S]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._presence = Presence(config, zk)
        self._store = Store(config.directory)
        self._directory = config.directory
        good = self._store.read().services
        known = {n: Service(g.config, g.plan, g.sets, g.own) for n, g in good.items()}
        self._catalog = Catalog(known, metrics.held, clock)
        self._reading = Reading(zk, self._catalog)
        self._page = Page()
        self._revisit = Revisit(wake, config.every, clock)
        report = Report(config.engine, self._catalog, self._presence, metrics, self._revisit)
        shared = Shared(config, self._catalog, self._page, report, self._revisit, metrics, hooks, clock, good)
        self._engine = engine(shared)
        self._clock = clock
        self._confirmed_at = clock()
        metrics.age(lambda: clock() - self._confirmed_at)

    def known_versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric."""
        return self._catalog.versions()

    def cycle(self) -> str:
        self._revisit.begin()
        try:
            if committed := self._reading.commits():
                self._engine.commit(committed)
            self._page.rostered = self._presence.register()
            self._page.leaving = self._presence.leaving()
            self._take()
            shape = self._engine.converge()
        except ZooKeeperTrouble as e:
            as_before = f"serving {', '.join(self._catalog) or 'nothing'} as before"
            raise ZooKeeperTrouble(f"{e}; {as_before}{self._alone()}") from e
        except self._engine.trouble as e:
            self._engine.nothing(str(e))
            raise
        if self._engine.applied(shape):
            self._remember(shape)
            if not (self._page.rostered or self._page.leaving or self._catalog.strangers):
                self._presence.join()
                # The page turns green in the next cycle, with plans read since.
                self._revisit.within(0.0)
        self._revisit.schedule()
        return self._engine.sentence(shape)

    def _take(self) -> None:
        due = self._reading.take()
        if due is not None:
            self._revisit.within(due)
        self._engine.taken()

    def _alone(self) -> str:
        """Without ZooKeeper hosts still die and come back, and the page must be red where none is left. What there is
        to be said of it."""
        try:
            self._engine.alone()
        except self._engine.trouble as e:
            return f"; {e}"
        return ""

    def _remember(self, shape: S) -> None:
        """What is confirmed becomes what a restart begins with."""
        self._confirmed_at = self._clock()
        good, boot = self._engine.confirmed(shape)
        try:
            if self._store.write(LastGood(services=good), boot):
                _log.info("last good set written", services=len(good))
        except OSError as e:
            raise Trouble(f"the last good set could not be written to {self._directory}: {e.strerror}") from e
