"""What is said of what was observed: an ack for each service, metrics, a cycle's one sentence. Changes nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge import health, members, plan
from edge.catalog import Catalog
from edge.look import Observed
from edge.metrics import Metrics
from edge.plan import Memory, Want
from edge.presence import Presence
from edge.revisit import Revisit
from fleet.loop import Said
from fleet.model import Ack

#: Characters of an ack's error.
_MOST = 4000
_REFUSED, _REFUSED_STAGED = "Varnish refused the VCL: ", "Varnish refused the staged VCL: "


class Report:
    def __init__(
        self,
        catalog: Catalog,
        presence: Presence,
        metrics: Metrics,
        revisit: Revisit,
        hook_fault: Callable[[str], str | None],
    ) -> None:
        """``hook_fault``: what went wrong with the hooks of a service's last commit."""
        self._catalog = catalog
        self._presence = presence
        self._metrics = metrics
        self._revisit = revisit
        self._hook_fault = hook_fault

    def acknowledge(self, wants: Sequence[Want], seen: Observed, memory: Memory, routed: frozenset[str]) -> None:
        """``routed``: services that the active root hands over to, if it is one of ours."""
        for w in wants:
            total, good = self._counts(w, seen)
            faults = self._faults(w, seen)
            ack = plan.ack(
                w,
                seen.look,
                memory,
                incarnation=seen.incarnation,
                routed=w.service in routed,
                ack_of=Ack(incarnation="", healthy=good, members=total, error=_error(faults)),
            )
            self._presence.acknowledge(w.service, ack)
            self._metrics.epoch(w.service, ack.applied)
            self._metrics.backends(w.service, total, good)
            self._metrics.faults(w.service, faults)
            if ack.drained < w.epoch or any(good[v] < n for v, n in total.items()):
                self._revisit.unfinished(w.service, (w.epoch, tuple(total.items())))
            else:
                self._revisit.finished(w.service)

        for name, unknown in self._catalog.strangers.items():
            self._presence.acknowledge(name, Ack(incarnation=seen.incarnation, error=_error(unknown)))
            self._metrics.faults(name, unknown)
        self._metrics.keep(self._catalog.versions(), frozenset(self._catalog.strangers))

    def nothing(self, wants: Sequence[Want], incarnation: str, error: str) -> None:
        """Varnish is away or not itself: whatever was said before no longer holds."""
        for w in wants:
            self._presence.acknowledge(w.service, Ack(incarnation=incarnation, error=error))
            self._metrics.epoch(w.service, 0)

    def sentence(self, wants: Sequence[Want], seen: Observed) -> Said:
        parts = {}
        for w in wants:
            s = self._catalog[w.service]
            total, good = self._counts(w, seen)
            state = "applied" if plan.applied(w, seen.look) else "not applied"
            hosts = ", ".join(f"{v} {good[v]}/{n}" for v, n in total.items()) or "no version"
            said = f"{w.service}: epoch {w.epoch} {state}, default {s.plan.default}, healthy {hosts}"
            faults = self._faults(w, seen)
            if faults:
                said += f" ({_error({kind: _first_line(text) for kind, text in faults.items()})})"
            parts[w.service] = said
        parts |= {name: f"{name}: not known ({_error(faults)})" for name, faults in self._catalog.strangers.items()}
        return Said(parts, otherwise="no services yet")

    def _faults(self, w: Want, seen: Observed) -> dict[str, str]:
        """Kind -> sentence: what Varnish refused, and what of the service could not be read or believed."""
        refused = (f"{_REFUSED}{seen.refused[r.name]}" for r in w.current if r.name in seen.refused)
        staged = (f"{_REFUSED_STAGED}{seen.refused[r.name]}" for r in w.staged if r.name in seen.refused)
        said = [text for texts in (refused, staged) for text in (*texts,)[:1]]
        found = {"vcl": "\n".join(said), **self._catalog[w.service].faults, "hook": self._hook_fault(w.service) or ""}
        return {kind: text for kind, text in found.items() if text}

    def _counts(self, w: Want, seen: Observed) -> tuple[dict[str, int], dict[str, int]]:
        return health.counts(w, members.wanted(self._catalog[w.service].plan), seen)


def _error(faults: Mapping[str, str]) -> str | None:
    return "; ".join(faults.values())[:_MOST] or None


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
