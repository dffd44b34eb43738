"""A Varnish beside an agent: renderings in, and step by step what ``edge.plan`` says, looking at Varnish before each.

While ZooKeeper is away nothing changes but the health page: Varnish's own probes look after the hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edge import health, members, page, plan, render, server
from edge.agent import Shared
from edge.driver import Driver
from edge.hooks import Commit
from edge.lastgood import Good
from edge.look import Look, Observed
from edge.own import Own
from edge.plan import Action, Label, Memory, Want
from edge.render import Rendered
from edge.renderings import Renderings
from edge.report import Found
from edge.varnish import Varnish, VarnishTrouble
from fleet.loop import Said

#: Seconds from the agent's start for which a health page stays red because requests are not counted.
_COUNTING = 10.0
#: Steps in one cycle; far more than any plan needs.
_ROUNDS = 200
_REFUSED, _REFUSED_STAGED = "Varnish refused the VCL: ", "Varnish refused the staged VCL: "


@dataclass(frozen=True)
class Shape:
    """What was wanted, and what Varnish was like at the end."""

    wants: Sequence[Want]
    seen: Observed


class VarnishEngine:
    trouble = VarnishTrouble

    def __init__(self, shared: Shared, varnish: Varnish, counting: Callable[[], bool]) -> None:
        """``counting``: is each request counted?"""
        self._shared = shared
        self._catalog = shared.catalog
        self._clock = shared.clock
        self._own = Own(shared.config.varnish.own)
        epochs = {n: g.epochs for n, g in shared.good.items()}
        self._renderings = Renderings(epochs, partial(shared.metrics.load, "render"), shared.clock)
        self._driver = Driver(varnish, shared.metrics.load, shared.metrics.overdue, shared.clock)
        self._counting = counting
        self._began = shared.clock()
        #: Root VCL -> the services it hands over to.
        self._roots: dict[str, frozenset[str]] = {}
        #: Service -> the default that was committed last.
        self._defaults = {n: g.plan.default for n, g in shared.good.items()}

    # -- observe --

    def taken(self) -> None:
        for name in self._catalog:
            self._catalog.take_own(name, self._own.read(name))

    def applied(self, shape: Shape) -> bool:
        return all(plan.applied(w, shape.seen.look) for w in shape.wants)

    def _wants(self) -> list[Want]:
        return self._renderings.wants(self._catalog)

    def _memory(self, seen: Observed) -> Memory:
        return Memory(
            self._renderings.epochs(), seen.ready, seen.refused, seen.overdue, seen.cut, self._renderings.endpoints()
        )

    # -- apply --

    def commit(self, services: Sequence[str]) -> None:
        wants = [self._renderings.current(name, self._catalog[name]) for name in services]
        self._tell_hooks(wants, self._driver.commit(wants))

    def converge(self) -> Shape:
        """Acknowledges after commits, and at the end."""
        acked = False
        wants = self._wants()
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
                    self._shared.revisit.within(0.05)
                return Shape(wants, seen)
            if not acked and not isinstance(step.actions[0], Label):
                # Before anything that takes time: say what has been committed.
                self._acknowledge(wants, seen)
                acked = True
            self._driver.apply(step.actions, seen.look)
            self._tell_hooks(wants, step.actions)
        raise VarnishTrouble(f"Varnish did not take shape in {_ROUNDS} steps; it will be tried again")

    def alone(self) -> None:
        wants = self._wants()
        seen = self._driver.observe(wants)
        why_red = self._why_red(wants, seen, alone=True)
        self._know_roots(wants, seen.look, why_red)
        self._driver.apply(plan.colour(wants, seen.look, self._memory(seen), why_red), seen.look)

    def _why_red(self, wants: Sequence[Want], seen: Observed, *, alone: bool) -> str | None:
        unknown, rostered = frozenset(self._catalog.strangers), self._shared.page.rostered
        counting = self._counts_or_never_will()
        red = partial(plan.red, wants, seen.look, rostered=rostered, unknown=unknown, counting=counting)
        dead = frozenset(w.service for w in wants if health.dead(w, self._catalog[w.service].plan, seen))
        return self._shared.page.why_red(red, dead, seen.incarnation, alone=alone)

    def _counts_or_never_will(self) -> bool:
        """Traffic waits for the counter, but not for ever: it is worth less than an edge."""
        if self._counting():
            return True
        self._shared.revisit.within(_COUNTING / 20)
        return self._clock() - self._began > _COUNTING

    def _tell_hooks(self, wants: Sequence[Want], done: Sequence[Action]) -> None:
        moved = {action.label for action in done if isinstance(action, Label)}
        for w in wants:
            if render.label(w.service) in moved:
                default, previous = self._catalog[w.service].plan.default, self._defaults.get(w.service)
                self._shared.hooks.committed(Commit(w.service, w.epoch, default or "", previous or ""))
                self._defaults[w.service] = default

    def _know_roots(self, wants: Sequence[Want], look: Look, why_red: str | None) -> None:
        """Which root is active matters for an ack, not its colour; after a restart it may be an earlier one of ours."""
        routes = plan.routes(wants, look)
        for reason in (why_red, None, server.NOT_YET, page.NOT_ROSTERED, page.LEAVING, plan.NOT_COUNTED):
            self._roots[render.root(routes, reason).name] = frozenset(r.service for r in routes)

    # -- confirm, report --

    def _acknowledge(self, wants: Sequence[Want], seen: Observed) -> None:
        routed = self._roots.get(plan.active(seen.look) or "", frozenset())
        memory = self._memory(seen)
        found = [(w, self._found(w, seen)) for w in wants]
        acks = [(f, plan.ack(w, seen.look, memory, routed=w.service in routed, ack_of=f.ack())) for w, f in found]
        self._shared.report.acknowledge(acks, seen.incarnation)

    def nothing(self, error: str) -> None:
        self._shared.report.nothing(self._driver.nothing, error)

    def sentence(self, shape: Shape) -> Said:
        return self._shared.report.sentence(self._found(w, shape.seen) for w in shape.wants)

    def _found(self, w: Want, seen: Observed) -> Found:
        total, good = health.counts(w, members.wanted(self._catalog[w.service].plan), seen)
        return Found(w.service, w.epoch, plan.applied(w, seen.look), total, good, self._faults(w, seen))

    def _faults(self, w: Want, seen: Observed) -> dict[str, str]:
        """Kind -> sentence: what Varnish refused, and what of the service could not be read or believed."""
        refused = (f"{_REFUSED}{seen.refused[r.name]}" for r in w.current if r.name in seen.refused)
        staged = (f"{_REFUSED_STAGED}{seen.refused[r.name]}" for r in w.staged if r.name in seen.refused)
        said = [text for texts in (refused, staged) for text in (*texts,)[:1]]
        hook = self._shared.hooks.fault(w.service) or ""
        found = {"vcl": "\n".join(said), **self._catalog[w.service].faults, "hook": hook}
        return {kind: text for kind, text in found.items() if text}

    def confirmed(self, shape: Shape) -> tuple[dict[str, Good], Callable[[], None]]:
        """Older renderings of settled services are forgotten."""
        wants, seen, memory = shape.wants, shape.seen, self._memory(shape.seen)
        good: dict[str, Good] = {}
        boot: dict[str, Rendered] = {}
        listed = {v.name for v in seen.look.vcls}
        for w in wants:
            s = self._catalog[w.service]
            target = plan.targets(seen.look)[render.label(w.service)]
            boot[w.service] = next(r for r in w.current if r.name == target)
            own = s.own if target == w.current[0].name or s.own_before is None else s.own_before
            epochs = self._renderings.prune(w, listed)
            if plan.settled(w, seen.look, memory):
                self._catalog.settled(w.service)
            good[w.service] = Good(plan=s.plan, config=s.config, sets=dict(s.sets), own=own or "", epochs=epochs)
        return good, partial(server.write_boot, self._shared.config, boot, plan.routes(wants, seen.look))
