"""What is believed, as VCLs that are wanted, rendered again on a change only; and the epochs each was rendered for."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping

from edge import render
from edge.catalog import Catalog, Service
from edge.plan import Want
from edge.render import Rendered

#: Beyond the probes' own deadline, until their answers show in Varnish's list.
_GRACE = 0.2


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

    def wants(self, catalog: Catalog) -> list[Want]:
        """Each service of ``catalog``; what is known of any other is forgotten."""
        names = list(catalog)
        self._epochs = {s: self._epochs.get(s, {}) for s in names}
        self._cache = {s: known for s, known in self._cache.items() if s in self._epochs}
        return [self._want(name, catalog[name]) for name in names]

    def epochs(self) -> dict[str, int]:
        """VCL -> last epoch that it was rendered for."""
        return {vcl: epoch for known in self._epochs.values() for vcl, epoch in known.items()}

    def prune(self, want: Want, listed: Container[str]) -> dict[str, int]:
        """Forget the VCLs of a service that are neither wanted nor ``listed`` by Varnish; what is left."""
        names = {r.name for r in (*want.current, *want.staged)}
        known = {n: e for n, e in self._epochs[want.service].items() if n in names or n in listed}
        self._epochs[want.service] = known
        return known

    def _want(self, name: str, s: Service) -> Want:
        key = (s.plan, s.config, s.sets, s.before)
        cached = self._cache.get(name)
        if cached and cached[0] == key:
            return cached[1]
        began = self._clock()
        choices = [s.sets, *([s.before] if s.before is not None else [])]
        current = tuple(render.service(name, s.config, s.plan, c) for c in choices)
        staged: tuple[Rendered, ...] = ()
        if s.plan.staged:
            staged = tuple(render.service(name, s.config, s.plan.committed(), c) for c in choices)
        self._took(self._clock() - began)
        probing = render.probe_timeout(s.config) + _GRACE
        want = Want(name, s.plan.epoch, s.config.match, current, staged, probing)
        if any(e > s.plan.epoch for e in self._epochs[name].values()):
            self._epochs[name] = {}  # someone put an older plan back: what was counted by the newer one means nothing
        self._epochs[name] |= {r.name: s.plan.epoch for r in (*current, *staged)}
        self._cache[name] = (key, want)
        return want
