"""What is believed, as VCLs that are wanted, rendered again on a change only; and the epochs each was rendered for."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping

from edge import render
from edge.catalog import Catalog, Service
from edge.members import Sets
from edge.plan import Want
from edge.render import Rendered
from fleet.model import Plan, ServiceConfig

#: Beyond the probes' own deadline, until their answers show in Varnish's list.
_GRACE = 0.2

#: What a text is made of: the plan without what no request depends on, configuration, members, the operator's own VCL.
Given = tuple[Plan, ServiceConfig, Sets, str]


class Renderings:
    def __init__(
        self,
        epochs: Mapping[str, Mapping[str, int]],
        took: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``epochs``: service -> VCL -> epoch, as known from before; ``took`` is told how long a rendering took."""
        self._epochs = {s: dict(known) for s, known in epochs.items()}
        self._took = took
        self._clock = clock
        self._cache: dict[str, tuple[object, Want]] = {}
        #: Of those that were rendered in the life of this agent, what is wanted or still loaded.
        self._known: dict[str, Rendered] = {}
        #: What each service's texts were last made of: a commit makes no new one of what was staged.
        self._made: dict[str, list[tuple[Given, Rendered]]] = {}

    def wants(self, catalog: Catalog) -> list[Want]:
        """Each service of ``catalog``; what is known of any other is forgotten."""
        names = list(catalog)
        self._epochs = {s: self._epochs.get(s, {}) for s in names}
        self._cache = {s: known for s, known in self._cache.items() if s in self._epochs}
        self._made = {s: made for s, made in self._made.items() if s in self._epochs}
        return [self._want(name, catalog[name]) for name in names]

    def current(self, name: str, s: Service) -> Want:
        """``s`` without what it stages: nothing is rendered for it where it was staged itself before."""
        rendered = tuple(self._rendered(name, given) for given in _choices(s, s.plan))
        return Want(name, s.plan.epoch, s.config.match, rendered)

    def epochs(self) -> dict[str, int]:
        """VCL -> last epoch that it was rendered for."""
        return {vcl: epoch for known in self._epochs.values() for vcl, epoch in known.items()}

    def endpoints(self) -> dict[str, frozenset[str]]:
        """VCL -> where it sends requests; of those that were rendered in the life of this agent."""
        return {name: frozenset(at for _, at in r.backends.values()) for name, r in self._known.items()}

    def prune(self, want: Want, listed: Container[str]) -> dict[str, int]:
        """Forget the VCLs of a service that are neither wanted nor ``listed`` by Varnish; what is left."""
        names = {r.name for r in (*want.current, *want.staged)}
        known = {n: e for n, e in self._epochs[want.service].items() if n in names or n in listed}
        self._epochs[want.service] = known
        start = render.prefix(want.service)
        self._known = {n: r for n, r in self._known.items() if n in known or not n.startswith(start)}
        return known

    def _want(self, name: str, s: Service) -> Want:
        key = (s.plan, s.config, s.sets, s.own, s.before, s.own_before)
        cached = self._cache.get(name)
        if cached and cached[0] == key:
            return cached[1]
        began = self._clock()
        now = [(given, self._rendered(name, given)) for given in _choices(s, s.plan)]
        later = (
            [(given, self._rendered(name, given)) for given in _choices(s, s.plan.committed())] if s.plan.staged else []
        )
        self._made[name] = [*now, *later]
        current, staged = (tuple(r for _, r in pairs) for pairs in (now, later))
        self._took(self._clock() - began)
        probing = render.probe_timeout(s.config) + _GRACE
        draining = max(s.config.drain_seconds, s.config.response_seconds) if s.config.drain_seconds else 0.0
        start, wanted = render.prefix(name), {r.name for r in (*current, *staged)}
        former = tuple(r for n, r in self._known.items() if n.startswith(start) and n not in wanted)
        want = Want(name, s.plan.epoch, s.config.match, current, staged, probing, draining, former)
        if any(e > s.plan.epoch for e in self._epochs[name].values()):
            self._epochs[name] = {}  # someone put an older plan back: what was counted by the newer one means nothing
        self._epochs[name] |= {r.name: s.plan.epoch for r in (*current, *staged)}
        self._known |= {r.name: r for r in (*current, *staged)}
        self._cache[name] = (key, want)
        return want

    def _rendered(self, name: str, given: Given) -> Rendered:
        known = next((r for made_of, r in self._made.get(name, ()) if made_of == given), None)
        if known is not None:
            return known
        plan, config, sets, own = given
        return render.service(name, config, plan, sets, own)


def _choices(s: Service, routing: Plan) -> list[Given]:
    """``routing`` with what is newest first, and last with what was good before. Between them the newest members with
    the own VCL of before: where the operator's new one is refused, hosts come and go all the same."""
    own = s.own or ""
    good = own if s.own_before is None else s.own_before
    inputs = [(s.sets, own), (s.sets, good), *([(s.before, good)] if s.before is not None else [])]
    distinct = [given for i, given in enumerate(inputs) if given not in inputs[:i]]
    return [(routing.routing(), s.config, sets, text) for sets, text in distinct]
