"""The agent of an nginx: plans and server sets in, what nginx does out, and an acknowledgement of what it really does.

The same cycle as the Varnish agent's: read the fleet, settle what to believe, render, go step by step where
``edge.nginx.plan`` says, looking at nginx before each, and last write down what was confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edge import members
from edge.catalog import Catalog, Service
from edge.config import EdgeConfig
from edge.hooks import Commit, Hooks
from edge.lastgood import Good, LastGood, Store
from edge.metrics import Metrics
from edge.nginx import plan, server
from edge.nginx import render as renders
from edge.nginx.control import Nginx, NginxTrouble
from edge.nginx.driver import Driver
from edge.nginx.hosts import Hosts
from edge.nginx.look import Look
from edge.nginx.plan import Want
from edge.nginx.probes import Probes
from edge.nginx.render import Configuration, Part, Unprintable
from edge.presence import Presence
from edge.reading import Reading
from edge.render import Route
from edge.revisit import Revisit
from fleet import log
from fleet.loop import Said, Trouble
from fleet.model import Ack
from fleet.zk import ZooKeeper, ZooKeeperTrouble

_log = log.get()

NOT_ROSTERED = "not on the roster yet"
LEAVING = "leaving"
ALONE = "ZooKeeper is away, and what it has to say of this start is not known"
_ROUNDS = 50
_MOST = 4000


class Agent:
    def __init__(
        self,
        config: EdgeConfig,
        zk: ZooKeeper,
        nginx: Nginx,
        probes: Probes,
        metrics: Metrics,
        hooks: Hooks,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._place = server.place(config)
        self._nginx = nginx
        self._metrics = metrics
        self._hooks = hooks
        self._clock = clock
        self._presence = Presence(config, zk)
        self._store = Store(config.directory)
        good = self._store.read().services
        self._catalog = Catalog({n: Service(g.config, g.plan, g.sets) for n, g in good.items()}, metrics.held, clock)
        self._reading = Reading(zk, self._catalog)
        self._epochs = {(n, key): e for n, g in good.items() for key, e in g.epochs.items()}
        self._drained: dict[str, int] = {}
        #: Service -> key and default of the routing that was in force last.
        self._active = {n: (renders.key(g.config, g.plan), g.plan.default) for n, g in good.items()}
        self._rostered = self._leaving = False
        #: The life of nginx whose page had no reason to be red but for its hosts, when ZooKeeper was last heard.
        self._fit: str | None = None
        #: What was rendered last, and from what.
        self._rendered: tuple[object, Configuration] | None = None
        self._hosts = Hosts(probes, {name: self._catalog[name] for name in self._catalog})
        self._driver = Driver(nginx, config.nginx.close_seconds, metrics.load, clock)
        self._revisit = Revisit(wake, config.every, clock)
        self._confirmed_at = clock()
        metrics.age(lambda: clock() - self._confirmed_at)

    def known_versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric."""
        return self._catalog.versions()

    def cycle(self) -> str:
        self._revisit.begin()
        try:
            if self._reading.commits():
                self._commit()
            self._rostered = self._presence.register()
            self._leaving = self._presence.leaving()
            self._take()
            self._hosts.follow({name: self._catalog[name] for name in self._catalog})
            wants, look = self._converge()
        except ZooKeeperTrouble as e:
            as_before = f"serving {', '.join(self._catalog) or 'nothing'} as before"
            raise ZooKeeperTrouble(f"{e}; {as_before}{self._alone()}") from e
        except NginxTrouble as e:
            self._nothing(str(e))
            raise
        self._remember(wants, look)
        waits = self._rostered or self._leaving or self._catalog.strangers
        if not waits and all(plan.applied(w, look) for w in wants):
            self._presence.join()
            # The page turns green in the next cycle, with plans read since.
            self._revisit.within(0.0)
        self._revisit.schedule()
        return self._sentence(wants, look)

    def _alone(self) -> str:
        """Without ZooKeeper hosts still die and come back, and the page must be red where none is left: all that a
        cycle does but for what it reads and says. What there is to be said of that."""
        try:
            self._converge(tell=False)
        except NginxTrouble as e:
            return f"; {e}"
        return ""

    # -- observe --

    def _take(self) -> None:
        due = self._reading.take()
        if due is not None:
            self._revisit.within(due)

    # -- render --

    def _wants(self) -> tuple[list[Want], Configuration]:
        """What each service should be now, by the hosts that are well now."""
        began = self._clock()
        self._hosts.look()
        wants, routes = [], []
        for name in self._catalog:
            s = self._catalog[name]
            part = self._part(name, s)
            wants.append(Want(name, s.plan.epoch, part))
            if part is not None:
                routes.append(Route(name, s.config.match))
                keys = {k for k in (part.current, part.staged) if k}
                if any(n == name and e > s.plan.epoch for (n, _), e in self._epochs.items()):
                    # Someone put an older plan back: what was counted by the newer one means nothing.
                    self._epochs = {known: e for known, e in self._epochs.items() if known[0] != name}
                self._epochs |= {(name, k): s.plan.epoch for k in keys}
        parts = [w.part for w in wants if w.part]
        shape = ([p.name for p in parts], routes)
        if self._rendered is None or self._rendered[0] != shape:
            self._rendered = shape, renders.configuration(parts, routes, self._place)
            self._metrics.load("render", self._clock() - began)
        return wants, self._rendered[1]

    def _part(self, name: str, s: Service) -> Part | None:
        s.faults.pop("nginx", None)
        try:
            return renders.part(name, s.config, s.plan, self._hosts.taking(name), self._place)
        except Unprintable as e:
            s.faults["nginx"] = str(e)
            return None

    # -- apply, confirm, report --

    def _commit(self) -> None:
        """Before all else: the instant at which a fleet switches is as long as this takes on each edge."""
        look = self._driver.observe()
        self._driver.apply(plan.switches(self._wants()[0], look), look)

    def _converge(self, *, tell: bool = True) -> tuple[list[Want], Look]:
        """Do what there is to do, looking before each step. Acknowledges after commits, and at the end (``tell``)."""
        for _ in range(_ROUNDS):
            look = self._driver.observe()
            wants, wanted = self._wants()
            self._nginx.colour(self._why_red(wants, look, alone=not tell))
            self._tell_hooks(wants, look)
            memory = self._driver.memory(self._epochs)
            complete = self._hosts.unasked() == 0
            actions = plan.decide(wants, wanted, look, self._nginx.flags(), memory, complete=complete)
            if not complete:
                self._revisit.within(0.05)
            if tell and (not actions or isinstance(actions[0], plan.Reload)):
                self._acknowledge(wants, look, memory.refused.get(wanted.name))
            if not actions:
                self._finish(wants, wanted, look)
                return wants, look
            pause = self._driver.apply(actions, look)
            if pause is not None:
                self._revisit.within(pause)
                return wants, look
        raise NginxTrouble(f"nginx did not take shape in {_ROUNDS} steps; it will be tried again")

    def _finish(self, wants: Sequence[Want], wanted: Configuration, look: Look) -> None:
        if look.marker.name == wanted.name:
            for w in wants:
                self._catalog.settled(w.service)
        if look.leaving or look.marker.name != wanted.name:
            self._revisit.unfinished("nginx", (look.marker.name, wanted.name))
        else:
            self._revisit.finished("nginx")

    def _why_red(self, wants: Sequence[Want], look: Look, *, alone: bool) -> str | None:
        """``alone``: what was not fit to be green when ZooKeeper was last heard, or has been started since, waits."""
        green, asked = server.GREEN in self._nginx.flags(), self._hosts.unasked() == 0
        unknown = frozenset(self._catalog.strangers)
        red = partial(plan.red, wants, look, green=green, rostered=self._rostered, unknown=unknown, asked=asked)
        if not alone:
            self._fit = self._driver.incarnation if red(dead=frozenset()) is None else None
        if self._leaving or not self._rostered:
            return LEAVING if self._leaving else red(dead=frozenset()) or NOT_ROSTERED
        dead = frozenset(w.service for w in wants if self._is_dead(w.service))
        return red(dead=dead) or (ALONE if alone and self._fit != self._driver.incarnation else None)

    def _tell_hooks(self, wants: Sequence[Want], look: Look) -> None:
        """Of a routing that came into force, by a commit or by a reload. Other hosts alone are none."""
        for w in wants:
            key, previous = self._active.get(w.service, ("", None))
            if w.part and plan.applied(w, look) and w.part.current != key:
                default = self._catalog[w.service].plan.default
                self._active[w.service] = w.part.current, default
                self._hooks.committed(Commit(w.service, w.epoch, default or "", previous or ""))

    def _is_dead(self, service: str) -> bool:
        routing = self._catalog[service].plan
        serving = routing.serving if routing.mode == "mixed" else (routing.default,)
        return routing.default is not None and not any(self._hosts.well(service).get(str(v)) for v in serving)

    def _acknowledge(self, wants: Sequence[Want], look: Look, refused: str | None) -> None:
        memory = self._driver.memory(self._epochs)
        for w in wants:
            total, good = self._counts(w)
            faults = self._faults(w.service, refused)
            ack = plan.ack(
                w,
                look,
                memory,
                incarnation=self._driver.incarnation,
                last_drained=self._drained.get(w.service, 0),
                ack_of=Ack(incarnation="", healthy=good, members=total, error=_error(faults)),
            )
            self._drained[w.service] = ack.drained
            self._presence.acknowledge(w.service, ack)
            self._metrics.epoch(w.service, ack.applied)
            self._metrics.backends(w.service, total, good)
            self._metrics.faults(w.service, faults)
            if ack.drained < w.epoch or ack.staged < w.epoch:
                self._revisit.unfinished(w.service, w.epoch)
            else:
                self._revisit.finished(w.service)
        for name, unknown in self._catalog.strangers.items():
            error = _error(unknown)
            self._presence.acknowledge(name, Ack(engine="nginx", incarnation=self._driver.incarnation, error=error))
            self._metrics.faults(name, unknown)
        self._metrics.keep(self._catalog.versions(), frozenset(self._catalog.strangers))

    def _nothing(self, error: str) -> None:
        """nginx is away or not itself: whatever was said before no longer holds."""
        self._drained = {}
        for name in self._catalog:
            self._presence.acknowledge(name, Ack(engine="nginx", incarnation=self._driver.nothing, error=error))
            self._metrics.epoch(name, 0)

    def _counts(self, w: Want) -> tuple[dict[str, int], dict[str, int]]:
        """Members and healthy ones per version; healthy are those that nginx really has, once it has them."""
        s = self._catalog[w.service]
        versions = members.wanted(s.plan)
        well = self._hosts.well(w.service)
        return {v: len(s.sets.get(v, ())) for v in versions}, {v: len(well.get(v, ())) for v in versions}

    def _faults(self, service: str, refused: str | None) -> dict[str, str]:
        said = {"nginx": f"nginx refused the configuration: {refused}"} if refused else {}
        if hook := self._hooks.fault(service):
            said["hook"] = hook
        if self._hosts.outage:
            said["probes"] = self._hosts.outage
        return {**said, **self._catalog[service].faults}

    def _sentence(self, wants: Sequence[Want], look: Look) -> Said:
        parts = {}
        for w in wants:
            total, good = self._counts(w)
            state = "applied" if plan.applied(w, look) else "not applied"
            hosts = ", ".join(f"{v} {good[v]}/{n}" for v, n in total.items()) or "no version"
            default = self._catalog[w.service].plan.default
            parts[w.service] = f"{w.service}: epoch {w.epoch} {state}, default {default}, healthy {hosts}"
            if faults := self._catalog[w.service].faults:
                parts[w.service] += f" ({_error(faults)})"
        parts |= {name: f"{name}: not known ({_error(faults)})" for name, faults in self._catalog.strangers.items()}
        return Said(parts, otherwise="no services yet")

    def _remember(self, wants: Sequence[Want], look: Look) -> None:
        """What is confirmed becomes what an agent begins with after a restart of its own."""
        if not all(plan.applied(w, look) for w in wants):
            return
        used = {(s, k) for s, r in look.marker.services.items() for k in (r.current, r.staged) if k}
        used |= {(w.service, k) for w in wants if w.part for k in (w.part.current, w.part.staged) if k}
        self._epochs = {known: e for known, e in self._epochs.items() if known in used}
        self._confirmed_at = self._clock()
        good = {w.service: self._good(w.service) for w in wants}
        try:
            if self._store.write(LastGood(services=good), lambda: None):
                _log.info("last good set written", services=len(good))
        except OSError as e:
            raise Trouble(f"the last good set could not be written to {self._config.directory}: {e.strerror}") from e

    def _good(self, service: str) -> Good:
        s = self._catalog[service]
        epochs = {key: e for (name, key), e in self._epochs.items() if name == service}
        return Good(plan=s.plan, config=s.config, sets=dict(s.sets), epochs=epochs)


def _error(faults: Mapping[str, str]) -> str | None:
    return "; ".join(faults.values())[:_MOST] or None
