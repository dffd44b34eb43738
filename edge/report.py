"""What is said of what was observed: an ack for each service, metrics, a cycle's one sentence. Changes nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from edge import health, members, plan
from edge.catalog import Catalog
from edge.look import Observed
from edge.metrics import Metrics
from edge.plan import Memory, Want
from edge.presence import Presence
from edge.revisit import Revisit
from fleet.model import Ack


class Report:
    def __init__(self, catalog: Catalog, presence: Presence, metrics: Metrics, revisit: Revisit) -> None:
        self._catalog = catalog
        self._presence = presence
        self._metrics = metrics
        self._revisit = revisit

    def acknowledge(self, wants: Sequence[Want], seen: Observed, memory: Memory, routed: frozenset[str]) -> None:
        """``routed``: services that the active root hands over to, if it is one of ours."""
        for w in wants:
            total, good = self._counts(w, seen)
            refused = next((seen.refused[r.name] for r in (*w.current, *w.staged) if r.name in seen.refused), None)
            error = refused or self._catalog[w.service].fault
            ack = plan.ack(
                w,
                seen.look,
                memory,
                incarnation=seen.incarnation,
                routed=w.service in routed,
                ack_of=Ack(incarnation="", healthy=good, members=total, error=error[:4000] if error else None),
            )
            self._presence.acknowledge(w.service, ack)
            self._metrics.epoch(w.service, ack.applied)
            self._metrics.backends(w.service, total, good)
            if ack.drained < w.epoch or any(good[v] < n for v, n in total.items()):
                self._revisit.unfinished(w.service, (w.epoch, tuple(total.items())))
            else:
                self._revisit.finished(w.service)

    def nothing(self, wants: Sequence[Want], incarnation: str, error: str) -> None:
        """Varnish is away or not itself: whatever was said before no longer holds."""
        for w in wants:
            self._presence.acknowledge(w.service, Ack(incarnation=incarnation, error=error))
            self._metrics.epoch(w.service, 0)

    def sentence(self, wants: Sequence[Want], seen: Observed) -> str:
        parts = []
        for w in wants:
            s = self._catalog[w.service]
            total, good = self._counts(w, seen)
            state = "applied" if plan.applied(w, seen.look) else "not applied"
            hosts = ", ".join(f"{v} {good[v]}/{n}" for v, n in total.items()) or "no version"
            parts.append(f"{w.service}: epoch {w.epoch} {state}, default {s.plan.default}, healthy {hosts}")
            if s.fault:
                parts[-1] += f" ({s.fault})"
        return "; ".join(parts) or "no services yet"

    def _counts(self, w: Want, seen: Observed) -> tuple[dict[str, int], dict[str, int]]:
        return health.counts(w, members.wanted(self._catalog[w.service].plan), seen)
