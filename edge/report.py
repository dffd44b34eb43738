"""What is said of what was found: an ack for each service, metrics, a cycle's one sentence. Changes nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from edge.catalog import Catalog
from edge.metrics import Metrics
from edge.presence import Presence
from edge.revisit import Revisit
from fleet.loop import Said
from fleet.model import Ack

#: Characters of an ack's error.
_MOST = 4000


@dataclass(frozen=True)
class Found:
    """One service as an engine has it now. ``members`` and ``healthy``: version -> how many hosts; ``faults``: what is
    wrong with it, kind -> text."""

    service: str
    epoch: int
    applied: bool
    members: Mapping[str, int]
    healthy: Mapping[str, int]
    faults: Mapping[str, str]

    def ack(self) -> Ack:
        """What of an ack does not depend on the engine."""
        return Ack(
            incarnation="", healthy=dict(self.healthy), members=dict(self.members), error=_error(self.faults.values())
        )


class Report:
    def __init__(
        self,
        engine: Literal["varnish", "nginx"],
        catalog: Catalog,
        presence: Presence,
        metrics: Metrics,
        revisit: Revisit,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._presence = presence
        self._metrics = metrics
        self._revisit = revisit

    def acknowledge(self, found: Iterable[tuple[Found, Ack]], incarnation: str) -> None:
        for of, ack in found:
            self._acknowledge(of.service, ack, incarnation)
            self._metrics.epoch(of.service, ack.applied)
            self._metrics.backends(of.service, of.members, of.healthy)
            self._metrics.faults(of.service, of.faults)
            behind = min(ack.drained, ack.staged) < of.epoch
            if behind or any(of.healthy.get(v, 0) < n for v, n in of.members.items()):
                self._revisit.unfinished(of.service, (of.epoch, tuple(of.members.items())))
            else:
                self._revisit.finished(of.service)
        for name, faults in self._catalog.strangers.items():
            self._acknowledge(name, Ack(incarnation="", error=_error(faults.values())), incarnation)
            self._metrics.faults(name, faults)
        self._metrics.keep(self._catalog.versions(), frozenset(self._catalog.strangers))

    def nothing(self, incarnation: str, error: str) -> None:
        """The engine's server is away or not itself: whatever was said before no longer holds."""
        for name in self._catalog:
            self._acknowledge(name, Ack(incarnation="", error=error), incarnation)
            self._metrics.epoch(name, 0)

    def sentence(self, found: Iterable[Found]) -> Said:
        parts = {}
        for of in found:
            state = "applied" if of.applied else "not applied"
            hosts = ", ".join(f"{v} {of.healthy.get(v, 0)}/{n}" for v, n in of.members.items()) or "no version"
            default = self._catalog[of.service].plan.default
            said = f"{of.service}: epoch {of.epoch} {state}, default {default}, healthy {hosts}"
            if of.faults:
                said += f" ({_error(text.partition(chr(10))[0] for text in of.faults.values())})"
            parts[of.service] = said
        for name, faults in self._catalog.strangers.items():
            parts[name] = f"{name}: not known ({_error(faults.values())})"
        return Said(parts, otherwise="no services yet")

    def _acknowledge(self, service: str, ack: Ack, incarnation: str) -> None:
        ack = ack.model_copy(update={"engine": self._engine, "incarnation": incarnation})
        self._presence.acknowledge(service, ack)


def _error(texts: Iterable[str]) -> str | None:
    return "; ".join(texts)[:_MOST] or None
