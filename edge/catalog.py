"""What an edge believes of ZooKeeper, service by service. Fed with what was read; does no I/O of its own.

A plan is adopted at once. Members are taken together, not too often, and not when a set shrank beyond belief; what
vanished without being removed, or became malformed, stays as it was and carries a fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edge import members
from edge.members import Accepted, Sets
from edge.view import Seen
from fleet import log
from fleet.model import Plan, ServiceConfig

_log = log.get()

#: Member changes are taken together: this long after the first, and not more often than every so many seconds.
SETTLE, INTERVAL = 0.3, 1.0


@dataclass
class Service:
    """One service as it is believed. Only its ``Catalog`` changes it."""

    config: ServiceConfig
    plan: Plan
    sets: Sets
    #: Members before ``sets``, until the VCLs with the new ones are ready.
    before: Sets | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None
    #: Members that have left and are still in what Varnish uses: (version, endpoint).
    left: frozenset[tuple[str, str]] = frozenset()
    changed_at: float | None = None
    taken_at: float = float("-inf")


class Catalog:
    def __init__(
        self,
        known: Mapping[str, Service],
        on_held: Callable[[str, Mapping[str, str]], None] = lambda _service, _versions: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_held`` is told of sets that are not believed, and when they are again."""
        self._services = dict(known)
        self._on_held = on_held
        self._clock = clock
        self._due: float | None = None

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._services))

    def versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric. Safe to call from another thread."""
        return {name: frozenset((*members.wanted(s.plan), *s.plan.retired)) for name, s in list(self._services.items())}

    def missing(self, seen: Iterable[str]) -> frozenset[str]:
        return frozenset(self._services).difference(seen)

    def lags(self, seen: Mapping[str, Seen]) -> bool:
        """Is a plan in ``seen`` older than the one that is known?"""
        return any(s.plan and n in self._services and self._is_older(n, s.plan) for n, s in seen.items())

    def take(self, seen: Mapping[str, Seen], removed: frozenset[str]) -> float | None:
        """Adopt what ZooKeeper says, as far as it can be believed. ``removed``: services that an operator removed.
        Seconds until the rest of it can be taken; None where nothing waits."""
        self._due = None
        for name in self.missing(seen):
            if name in removed:
                del self._services[name]
            else:
                self._services[name].fault = f"{name} vanished from ZooKeeper and nobody removed it: kept as it was"
        for name, s in seen.items():
            self._take(name, s)
        return self._due

    def settled(self, name: str) -> None:
        """Varnish uses the newest members: those before them are not needed any more."""
        self._services[name].before = None

    def _is_older(self, name: str, seen: Plan) -> bool:
        return seen.epoch < self._services[name].plan.epoch

    def _take(self, name: str, seen: Seen) -> None:
        known = self._services.get(name)
        if seen.plan is None or seen.config is None:
            if known:
                known.fault = seen.fault or f"{name} has no plan any more: kept the last good one"
            elif seen.fault is None and seen.config is not None:
                self._services[name] = Service(seen.config, Plan(), {})
            return
        if known is None:
            accepted = members.accept({}, seen.sets, seen.plan)
            self._services[name] = Service(seen.config, seen.plan, accepted.sets, fault=seen.fault)
            return
        known.fault = seen.fault
        known.config = seen.config
        if self._is_older(name, seen.plan):
            _log.warning("a plan went back", service=name, known=known.plan.epoch, seen=seen.plan.epoch)
        others = members.wanted(seen.plan) != members.wanted(known.plan) or seen.plan.mode != known.plan.mode
        known.plan = seen.plan
        self._take_members(name, known, members.accept(known.sets, seen.sets, seen.plan), others)

    def _take_members(self, name: str, s: Service, accepted: Accepted, at_once: bool) -> None:
        if accepted.held != s.held:
            for sentence in accepted.held.values():
                _log.warning("a server set shrank beyond belief", service=name, what=sentence)
            s.held = accepted.held
            self._on_held(name, s.held)
        if dict(accepted.sets) == dict(s.sets):
            s.changed_at, s.left = None, frozenset()
            return
        now = self._clock()
        if s.changed_at is None:
            s.changed_at = now
        s.left = _endpoints(s.sets) - _endpoints(accepted.sets)
        due = max(s.changed_at + SETTLE, s.taken_at + INTERVAL)
        if not at_once and now < due:
            self._due = min(due - now, self._due if self._due is not None else due - now)
            return
        s.before = None if at_once else (s.before or s.sets)
        s.sets, s.changed_at, s.taken_at = accepted.sets, None, now


def _endpoints(sets: Sets) -> frozenset[tuple[str, str]]:
    return frozenset((v, h.endpoint) for v, hosts in sets.items() for h in hosts)
