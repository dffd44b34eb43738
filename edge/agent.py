"""The edge agent: plans and server sets in, what Varnish does out, and an acknowledgement of what it really does.

One cycle: read the fleet, settle which members to believe, render, then step by step what ``edge.plan`` says, looking
at Varnish before and after each step, and last write down what was confirmed. While ZooKeeper is away nothing changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from edge import health, plan, render, server
from edge.catalog import Catalog, Service
from edge.config import EdgeConfig
from edge.driver import Driver
from edge.hooks import Commit, Hooks
from edge.lastgood import Good, LastGood, Store
from edge.look import Look, Observed
from edge.metrics import Metrics
from edge.own import Own
from edge.plan import Action, Label, Memory, Want
from edge.presence import Presence
from edge.reading import Reading
from edge.render import Rendered
from edge.renderings import Renderings
from edge.report import Report
from edge.revisit import Revisit
from edge.varnish import Varnish, VarnishTrouble
from fleet import log
from fleet.loop import Trouble
from fleet.zk import ZooKeeper, ZooKeeperTrouble

_log = log.get()

NOT_ROSTERED = "not on the roster yet"
LEAVING = "leaving"
ALONE = "ZooKeeper is away, and what it has to say of this start is not known"
#: Seconds from the agent's start for which a health page stays red because requests are not counted.
_COUNTING = 10.0
#: Steps in one cycle; far more than any plan needs.
_ROUNDS = 200


class Agent:
    def __init__(
        self,
        config: EdgeConfig,
        zk: ZooKeeper,
        varnish: Varnish,
        metrics: Metrics,
        hooks: Hooks,
        wake: Callable[[], None],
        counting: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``counting``: is each request counted?"""
        self._config = config
        self._presence = Presence(config, zk)
        self._store = Store(config.directory)
        good = self._store.read().services
        self._own = Own(config.varnish.own)
        known = {n: Service(g.config, g.plan, g.sets, g.own) for n, g in good.items()}
        self._catalog = Catalog(known, metrics.held, clock)
        self._reading = Reading(zk, self._catalog)
        self._renderings = Renderings({n: g.epochs for n, g in good.items()}, partial(metrics.load, "render"), clock)
        self._driver = Driver(varnish, metrics.load, metrics.overdue, clock)
        self._revisit = Revisit(wake, config.every, clock)
        self._hooks = hooks
        self._report = Report(self._catalog, self._presence, metrics, self._revisit, hooks.fault)
        self._counting = counting
        self._clock = clock
        self._began = clock()
        #: Root VCL -> the services it hands over to.
        self._roots: dict[str, frozenset[str]] = {}
        #: Service -> the default that was committed last.
        self._defaults = {n: g.plan.default for n, g in good.items()}
        self._rostered = self._leaving = False
        #: The life of Varnish whose page had no reason to be red but for its hosts, when ZooKeeper was last heard.
        self._fit: str | None = None
        self._confirmed_at = clock()
        metrics.age(lambda: clock() - self._confirmed_at)

    def known_versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric."""
        return self._catalog.versions()

    def cycle(self) -> str:
        self._revisit.begin()
        try:
            if committed := self._reading.commits():
                self._commit(committed)
            self._rostered = self._presence.register()
            self._leaving = self._presence.leaving()
            self._take()
            wants = self._renderings.wants(self._catalog)
            seen = self._converge(wants)
        except ZooKeeperTrouble as e:
            as_before = f"serving {', '.join(self._catalog) or 'nothing'} as before"
            raise ZooKeeperTrouble(f"{e}; {as_before}{self._alone()}") from e
        except VarnishTrouble as e:
            self._report.nothing(self._renderings.wants(self._catalog), self._driver.nothing, str(e))
            raise
        self._remember(wants, seen)
        if (
            not self._rostered
            and not self._leaving
            and not self._catalog.strangers
            and all(plan.applied(w, seen.look) for w in wants)
        ):
            self._presence.join()
            # The page turns green in the next cycle, with plans read since.
            self._revisit.within(0.0)
        self._revisit.schedule()
        return self._report.sentence(wants, seen)

    def _alone(self) -> str:
        """Without ZooKeeper nothing moves, but hosts still die and come back (Varnish sees to that), and the page must
        be red where none is left. What there is to be said of it."""
        wants = self._renderings.wants(self._catalog)
        try:
            seen = self._driver.observe(wants)
            why_red = self._why_red(wants, seen, alone=True)
            self._know_roots(wants, seen.look, why_red)
            self._driver.apply(plan.colour(wants, seen.look, self._memory(seen), why_red), seen.look)
        except VarnishTrouble as e:
            return f"; {e}"
        return ""

    # -- observe --

    def _take(self) -> None:
        due = self._reading.take()
        if due is not None:
            self._revisit.within(due)
        for name in self._catalog:
            self._catalog.take_own(name, self._own.read(name))

    # -- apply, confirm, report --

    def _commit(self, services: Sequence[str]) -> None:
        """The instant at which a fleet switches is as long as this takes on each edge. What else there is to do, the
        acknowledgement included, follows."""
        wants = [self._renderings.current(name, self._catalog[name]) for name in services]
        self._tell_hooks(wants, self._driver.commit(wants))

    def _converge(self, wants: Sequence[Want]) -> Observed:
        """Do what there is to do, looking before each step. Acknowledges after commits, and at the end."""
        acked = False
        left = {w.service: self._catalog[w.service].left for w in wants}
        for _ in range(_ROUNDS):
            seen = self._driver.observe(wants)
            self._driver.mark(wants, left)
            why_red = self._why_red(wants, seen, alone=False)
            self._know_roots(wants, seen.look, why_red)
            step = plan.decide(wants, seen.look, self._memory(seen), why_red)
            if not step.actions:
                self._acknowledge(wants, seen)
                if step.waiting:
                    self._revisit.within(0.05)
                return seen
            if not acked and not isinstance(step.actions[0], Label):
                # Before anything that takes time: say what has been committed.
                self._acknowledge(wants, seen)
                acked = True
            self._driver.apply(step.actions, seen.look)
            self._tell_hooks(wants, step.actions)
        raise VarnishTrouble(f"Varnish did not take shape in {_ROUNDS} steps; it will be tried again")

    def _why_red(self, wants: Sequence[Want], seen: Observed, *, alone: bool) -> str | None:
        """``alone``: what was not fit to be green when ZooKeeper was last heard, or has been started since, waits."""
        unknown, counting = frozenset(self._catalog.strangers), self._counts_or_never_will()
        red = partial(plan.red, wants, seen.look, rostered=self._rostered, unknown=unknown, counting=counting)
        if not alone:
            self._fit = seen.incarnation if red(dead=frozenset()) is None else None
        if self._leaving or not self._rostered:
            return LEAVING if self._leaving else red(dead=frozenset()) or NOT_ROSTERED
        dead = frozenset(w.service for w in wants if health.dead(w, self._catalog[w.service].plan, seen))
        return red(dead=dead) or (ALONE if alone and self._fit != seen.incarnation else None)

    def _tell_hooks(self, wants: Sequence[Want], done: Sequence[Action]) -> None:
        moved = {action.label for action in done if isinstance(action, Label)}
        for w in wants:
            if render.label(w.service) in moved:
                default, previous = self._catalog[w.service].plan.default, self._defaults.get(w.service)
                self._hooks.committed(Commit(w.service, w.epoch, default or "", previous or ""))
                self._defaults[w.service] = default

    def _counts_or_never_will(self) -> bool:
        """Traffic waits for the counter, but not for ever: it is worth less than an edge."""
        if self._counting():
            return True
        self._revisit.within(_COUNTING / 20)
        return self._clock() - self._began > _COUNTING

    def _memory(self, seen: Observed) -> Memory:
        return Memory(
            self._renderings.epochs(), seen.ready, seen.refused, seen.overdue, seen.cut, self._renderings.endpoints()
        )

    def _know_roots(self, wants: Sequence[Want], look: Look, why_red: str | None) -> None:
        """Which root is active matters for an ack, not its colour; after a restart it may be an earlier one of ours."""
        routes = plan.routes(wants, look)
        for reason in (why_red, None, server.NOT_YET, NOT_ROSTERED, LEAVING, plan.NOT_COUNTED):
            self._roots[render.root(routes, reason).name] = frozenset(r.service for r in routes)

    def _acknowledge(self, wants: Sequence[Want], seen: Observed) -> None:
        routed = self._roots.get(plan.active(seen.look) or "", frozenset())
        self._report.acknowledge(wants, seen, self._memory(seen), routed)

    def _remember(self, wants: Sequence[Want], seen: Observed) -> None:
        """What is confirmed becomes what a restart begins with; older renderings of settled services are forgotten."""
        memory = self._memory(seen)
        good: dict[str, Good] = {}
        boot: dict[str, Rendered] = {}
        listed = {v.name for v in seen.look.vcls}
        for w in wants:
            if not plan.applied(w, seen.look):
                return
            s = self._catalog[w.service]
            target = plan.targets(seen.look)[render.label(w.service)]
            boot[w.service] = next(r for r in w.current if r.name == target)
            own = s.own if target == w.current[0].name or s.own_before is None else s.own_before
            epochs = self._renderings.prune(w, listed)
            if plan.settled(w, seen.look, memory):
                self._catalog.settled(w.service)
            good[w.service] = Good(plan=s.plan, config=s.config, sets=dict(s.sets), own=own or "", epochs=epochs)
        self._confirmed_at = self._clock()
        try:
            write_boot = partial(server.write_boot, self._config, boot, plan.routes(wants, seen.look))
            if self._store.write(LastGood(services=good), write_boot):
                _log.info("last good set written", services=len(good))
        except OSError as e:
            raise Trouble(f"the last good set could not be written to {self._config.directory}: {e.strerror}") from e
