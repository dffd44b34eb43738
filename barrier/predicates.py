"""Barriers: is it so at every edge, and if not, who is missing and why. Pure; no clock, no I/O.

A barrier is a predicate over the roster (who must say so) and the acks (what each edge says it really does). No ack
is never a yes. The reasons are for people: plain words, stable while nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fleet.model import Ack


class Missing(NamedTuple):
    """Who is not there yet (an edge, a host, or the service itself), and why."""

    who: str
    why: str

    def __str__(self) -> str:
        return f"{self.who}: {self.why}"


@dataclass(frozen=True)
class Edges:
    """What barriers look at: who must answer, who is alive, and what each said last."""

    roster: tuple[str, ...] = ()
    alive: frozenset[str] = frozenset()
    acks: Mapping[str, Ack] | None = None

    def ack(self, edge: str) -> Ack | None:
        return self.acks.get(edge) if self.acks else None


Why = Callable[[Ack], str | None]


def _each(edges: Edges, why: Iterable[Why]) -> tuple[Missing, ...]:
    """One reason for each rostered edge that any of ``why`` has something to say about."""
    reasons = list(why)
    missing = []
    for edge in sorted(edges.roster):
        ack = edges.ack(edge)
        if ack is None:
            away = "it has not seen this service yet" if edge in edges.alive else "its agent is away"
            missing.append(Missing(edge, f"no ack ({away})"))
            continue
        found = next((text for reason in reasons if (text := reason(ack)) is not None), None)
        if found is not None:
            missing.append(Missing(edge, f"{found}: {ack.error}" if ack.error else found))
    return tuple(missing)


def _applied(epoch: int) -> Why:
    return lambda ack: None if ack.applied >= epoch else f"epoch {ack.applied} of {epoch}"


def _staged(epoch: int) -> Why:
    return lambda ack: None if ack.staged >= epoch else f"staged plan of epoch {epoch} not warm (has {ack.staged})"


def _drained(epoch: int) -> Why:
    return lambda ack: None if ack.drained >= epoch else f"requests left on plans older than epoch {epoch}"


def floor(percent: int, registered: int) -> int:
    """How many healthy members an edge must see: ``percent`` of those registered, rounded up, never none."""
    return max(1, math.ceil(percent * registered / 100))


def _healthy(version: str, registered: int, percent: int) -> Why:
    needed = floor(percent, registered)

    def why(ack: Ack) -> str | None:
        seen = ack.healthy.get(version, 0)
        return None if seen >= needed else f"sees {seen} of {registered} healthy {version}, needs {needed}"

    return why


def applied(edges: Edges, epoch: int) -> tuple[Missing, ...]:
    """Every rostered edge serves new requests by the plan of ``epoch`` or a newer one."""
    return _each(edges, [_applied(epoch)])


def staged(edges: Edges, epoch: int) -> tuple[Missing, ...]:
    """... and has that plan's staged change loaded and warm."""
    return _each(edges, [_applied(epoch), _staged(epoch)])


def drained(edges: Edges, epoch: int) -> tuple[Missing, ...]:
    """... and no request is left on anything older."""
    return _each(edges, [_applied(epoch), _drained(epoch)])


def healthy(edges: Edges, version: str, registered: int, percent: int) -> tuple[Missing, ...]:
    """Every rostered edge sees its floor of healthy members of ``version``."""
    return _each(edges, [_healthy(version, registered, percent)])


def ready(edges: Edges, epoch: int, version: str, registered: int, percent: int) -> tuple[Missing, ...]:
    """The default may move to ``version``: offered, warm and healthy at every rostered edge, and really there."""
    if registered < 1:
        return (Missing(version, "no host has registered it"),)
    return _each(edges, [_applied(epoch), _staged(epoch), _healthy(version, registered, percent)])


def names(missing: Collection[Missing]) -> frozenset[str]:
    return frozenset(m.who for m in missing)
