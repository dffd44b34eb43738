"""An nginx beside an agent: plans and the hosts that its own probes find well in, and step by step what
``edge.nginx.plan`` says, looking at nginx before each.

While ZooKeeper is away hosts still come and go, as they do with Varnish's own probes; no request is routed otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edge import members
from edge.agent import Shared
from edge.catalog import Service
from edge.hooks import Commit
from edge.lastgood import Good
from edge.nginx import plan, server
from edge.nginx import render as renders
from edge.nginx.control import Nginx, NginxTrouble
from edge.nginx.driver import Driver
from edge.nginx.hosts import Hosts
from edge.nginx.look import Look
from edge.nginx.plan import Action, Memory, Want
from edge.nginx.probes import Probes
from edge.nginx.render import Configuration, Part, Unprintable
from edge.render import Route
from edge.report import Found
from fleet.loop import Said

_ROUNDS = 50


@dataclass(frozen=True)
class Shape:
    """What was wanted, and what nginx was like at the end; ``refused``: why it did not take the configuration."""

    wants: Sequence[Want]
    look: Look
    refused: str | None


class NginxEngine:
    trouble = NginxTrouble

    def __init__(self, shared: Shared, nginx: Nginx, probes: Probes) -> None:
        self._shared = shared
        self._catalog = shared.catalog
        self._place = server.place(shared.config)
        self._nginx = nginx
        self._clock = shared.clock
        self._epochs = {(n, key): e for n, g in shared.good.items() for key, e in g.epochs.items()}
        self._drained: dict[str, int] = {}
        #: Service -> key and default of the routing that was in force last.
        self._active = {n: (renders.key(g.config, g.plan), g.plan.default) for n, g in shared.good.items()}
        #: What was rendered last, and from what.
        self._rendered: tuple[object, Configuration] | None = None
        #: What is wanted or in force, by name: of what an earlier agent rendered, the hosts are not known.
        self._parts: dict[str, Part] = {}
        self._hosts = Hosts(probes, self._services())
        self._driver = Driver(nginx, shared.config.nginx.close_seconds, shared.metrics.load, shared.clock)

    def _services(self) -> dict[str, Service]:
        return {name: self._catalog[name] for name in self._catalog}

    # -- observe --

    def taken(self) -> None:
        self._hosts.follow(self._services())

    def applied(self, shape: Shape) -> bool:
        return all(plan.applied(w, shape.look) for w in shape.wants)

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
            self._shared.metrics.load("render", self._clock() - began)
        return wants, self._rendered[1]

    def _part(self, name: str, s: Service) -> Part | None:
        s.faults.pop("nginx", None)
        try:
            return renders.part(name, s.config, s.plan, self._hosts.taking(name), self._place)
        except Unprintable as e:
            s.faults["nginx"] = str(e)
            return None

    # -- apply --

    def commit(self, services: Sequence[str]) -> None:
        look = self._driver.observe()
        self._driver.apply(plan.switches(self._wants()[0], look), look)

    def converge(self) -> Shape:
        """Acknowledges after commits, and at the end."""
        return self._steps(alone=False)

    def alone(self) -> None:
        self._steps(alone=True)

    def _steps(self, *, alone: bool) -> Shape:
        for _ in range(_ROUNDS):
            look = self._driver.observe()
            wants, wanted = self._wants()
            self._nginx.colour(self._why_red(wants, look, alone=alone))
            self._tell_hooks(wants, look)
            self._know_parts(wants, look)
            memory = self._driver.memory(self._epochs)
            shape = Shape(wants, look, memory.refused.get(wanted.name))
            actions = self._decide(wants, wanted, look, memory, alone=alone)
            if not alone and (not actions or isinstance(actions[0], plan.Reload)):
                self._acknowledge(shape, memory)
            if not actions:
                self._finish(wants, wanted, look)
                return shape
            pause = self._driver.apply(actions, look)
            if pause is not None:
                self._shared.revisit.within(pause)
                return shape
        raise NginxTrouble(f"nginx did not take shape in {_ROUNDS} steps; it will be tried again")

    def _decide(
        self, wants: Sequence[Want], wanted: Configuration, look: Look, memory: Memory, *, alone: bool
    ) -> tuple[Action, ...]:
        if alone and plan.moves(wants, look):
            return ()
        complete = self._hosts.unasked() == 0
        if not complete:
            self._shared.revisit.within(0.05)
        return plan.decide(wants, wanted, look, self._nginx.flags(), memory, complete=complete)

    def _know_parts(self, wants: Sequence[Want], look: Look) -> None:
        wanted = {w.part.name: w.part for w in wants if w.part}
        used = {r.part for r in look.marker.services.values()}
        self._parts = {n: p for n, p in (self._parts | wanted).items() if n in used or n in wanted}

    def _finish(self, wants: Sequence[Want], wanted: Configuration, look: Look) -> None:
        if look.marker.name == wanted.name:
            for w in wants:
                self._catalog.settled(w.service)
        if look.leaving or look.marker.name != wanted.name:
            self._shared.revisit.unfinished("nginx", (look.marker.name, wanted.name))
        else:
            self._shared.revisit.finished("nginx")

    def _why_red(self, wants: Sequence[Want], look: Look, *, alone: bool) -> str | None:
        green, asked = server.GREEN in self._nginx.flags(), self._hosts.unasked() == 0
        unknown, rostered = frozenset(self._catalog.strangers), self._shared.page.rostered
        red = partial(plan.red, wants, look, green=green, rostered=rostered, unknown=unknown, asked=asked)
        dead = frozenset(w.service for w in wants if self._is_dead(w.service))
        return self._shared.page.why_red(red, dead, self._driver.incarnation, alone=alone)

    def _is_dead(self, service: str) -> bool:
        routing = self._catalog[service].plan
        serving = routing.serving if routing.mode == "mixed" else (routing.default,)
        return routing.default is not None and not any(self._hosts.well(service).get(str(v)) for v in serving)

    def _tell_hooks(self, wants: Sequence[Want], look: Look) -> None:
        """Of a routing that came into force, by a commit or by a reload. Other hosts alone are none."""
        for w in wants:
            key, previous = self._active.get(w.service, ("", None))
            if w.part and plan.applied(w, look) and w.part.current != key:
                default = self._catalog[w.service].plan.default
                self._active[w.service] = w.part.current, default
                self._shared.hooks.committed(Commit(w.service, w.epoch, default or "", previous or ""))

    # -- confirm, report --

    def _acknowledge(self, shape: Shape, memory: Memory) -> None:
        acks = []
        for w in shape.wants:
            found = self._found(w, shape)
            last = self._drained.get(w.service, 0)
            ack = plan.ack(w, shape.look, memory, last_drained=last, ack_of=found.ack())
            self._drained[w.service] = ack.drained
            acks.append((found, ack))
        self._shared.report.acknowledge(acks, self._driver.incarnation)

    def nothing(self, error: str) -> None:
        self._drained = {}
        self._shared.report.nothing(self._driver.nothing, error)

    def sentence(self, shape: Shape) -> Said:
        return self._shared.report.sentence(self._found(w, shape) for w in shape.wants)

    def _found(self, w: Want, shape: Shape) -> Found:
        """Healthy are those that are well, and that nginx has: others get no request, and nobody may count on them."""
        s, well = self._catalog[w.service], self._hosts.well(w.service)
        now = shape.look.marker.services.get(w.service)
        part = self._parts.get(now.part) if now else None
        total, good = {}, {}
        for version in members.wanted(s.plan):
            has = part.hosts.get(version, frozenset()) if part else frozenset()
            total[version] = len(s.sets.get(version, ()))
            good[version] = sum(h.endpoint in has for h in well.get(version, ()))
        return Found(w.service, w.epoch, plan.applied(w, shape.look), total, good, self._faults(w.service, shape))

    def _faults(self, service: str, shape: Shape) -> dict[str, str]:
        said = {"nginx": f"nginx refused the configuration: {shape.refused}"} if shape.refused else {}
        if hook := self._shared.hooks.fault(service):
            said["hook"] = hook
        if self._hosts.outage:
            said["probes"] = self._hosts.outage
        return {**said, **self._catalog[service].faults}

    def confirmed(self, shape: Shape) -> tuple[dict[str, Good], Callable[[], None]]:
        """nginx boots from what it last served by, which ``edge.nginx.control`` has kept."""
        used = {(s, k) for s, r in shape.look.marker.services.items() for k in (r.current, r.staged) if k}
        used |= {(w.service, k) for w in shape.wants if w.part for k in (w.part.current, w.part.staged) if k}
        self._epochs = {known: e for known, e in self._epochs.items() if known in used}
        return {w.service: self._good(w.service) for w in shape.wants}, lambda: None

    def _good(self, service: str) -> Good:
        s = self._catalog[service]
        epochs = {key: e for (name, key), e in self._epochs.items() if name == service}
        return Good(plan=s.plan, config=s.config, sets=dict(s.sets), epochs=epochs)
