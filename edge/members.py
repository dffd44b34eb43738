"""The server sets as an edge accepts them. Pure: what was accepted last and what is registered now -> what to accept.

A set that loses more than half of its members at once, or all of them, is not believed unless the plan withdrew the
version: the edge keeps the last good set, and its own probes tell which of the hosts are really dead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet.model import Member, Plan


@dataclass(frozen=True, order=True)
class Host:
    """Where one host serves one version."""

    address: str
    port: int
    weight: int = 1

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


#: Version -> its hosts, sorted; one entry an endpoint.
Sets = Mapping[str, tuple[Host, ...]]


@dataclass(frozen=True)
class Accepted:
    """What the edge routes to, and what it refused to believe: version -> one sentence."""

    sets: Sets
    held: Mapping[str, str]


def wanted(plan: Plan) -> tuple[str, ...]:
    """The versions whose server sets matter under ``plan``, newest first."""
    return tuple(dict.fromkeys((*plan.serving, *(p.version for p in plan.previews))))


def address(text: str) -> str | None:
    """The IP address in its one spelling; None where that is not what it is. A name is none: one that does not resolve
    would keep the whole service's VCL from compiling."""
    try:
        at = ipaddress.ip_address(text)
    except ValueError:
        return None
    if at.is_unspecified or at.is_multicast or "%" in text:
        return None
    return str(at)


def host(m: Member) -> Host | str | None:
    """Where ``m`` takes requests; None where it takes none, for it is stopping; a sentence where none ever can."""
    at = address(m.serviceEndpoint.host)
    if at is None:
        return f"{m.serviceEndpoint.host[:100]!r} is not the IP address of a host"
    return Host(at, m.serviceEndpoint.port, m.weight) if m.status == "ALIVE" else None


def hosts(found: Iterable[Host]) -> tuple[Host, ...]:
    """Sorted, one an endpoint."""
    return tuple(sorted({h.endpoint: h for h in found}.values()))


def accept(last: Sets, seen: Sets, plan: Plan) -> Accepted:
    """``seen``, but for sets that shrank beyond belief: those who left stay as they were in ``last``.

    In mixed mode all versions are one pool and hosts move from one version's set to the other's, so the pool as a
    whole is what must not shrink.
    """
    versions = wanted(plan)
    if plan.mode == "mixed":
        before = {h.endpoint for v in versions for h in last.get(v, ())}
        after = {h.endpoint for v in versions for h in seen.get(v, ())}
        if sentence := _unbelievable("the pool", before, after):
            return Accepted({v: _with(seen.get(v, ()), last.get(v, ()), but=after) for v in versions}, {"*": sentence})
        return Accepted({v: seen.get(v, ()) for v in versions}, {})
    sets: dict[str, tuple[Host, ...]] = {}
    held: dict[str, str] = {}
    for v in versions:
        before, after = ({h.endpoint for h in s.get(v, ())} for s in (last, seen))
        if sentence := _unbelievable(v, before, after):
            # An address that now belongs to another version is certainly not this one's any more.
            elsewhere = {h.endpoint for w in versions if w != v for h in seen.get(w, ())}
            sets[v] = _with(seen.get(v, ()), last[v], but=elsewhere | after)
            held[v] = sentence
        else:
            sets[v] = seen.get(v, ())
    return Accepted(sets, held)


def _with(new: Iterable[Host], kept: Iterable[Host], *, but: Collection[str]) -> tuple[Host, ...]:
    """Who came is believed at any time, beside those who are kept."""
    return tuple(sorted((*new, *(h for h in kept if h.endpoint not in but))))


def _unbelievable(what: str, before: set[str], after: set[str]) -> str | None:
    kept = len(before & after)
    if before and (not after or (len(before) - kept > len(before) / 2 and len(after) < len(before))):
        return f"{what} fell from {len(before)} to {len(after)} hosts at once: kept the {len(before)}"
    return None
