"""What an edge believes of ZooKeeper, service by service. Fed with what was read; does no I/O of its own.

A plan is adopted at once. Members are taken together, not too often, and not when a set shrank beyond belief; what
vanished without being removed, or became malformed, stays as it was and carries a fault.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from edge import members
from edge.members import Accepted, Sets
from edge.view import Seen
from fleet import log
from fleet.model import Plan, ServiceConfig

_log = log.get()

#: Member changes are taken together: this long after the first, at random up to so much later, so that not all edges
#: compile (and their new probes ask) at once; and not more often than every so many seconds.
SETTLE, SPREAD, INTERVAL = 0.05, 0.05, 1.0


@dataclass
class Service:
    """One service as it is believed. Only its ``Catalog`` changes it."""

    config: ServiceConfig
    plan: Plan
    sets: Sets
    #: The operator's own VCL; None until it has been read.
    own: str | None = None
    #: Members and own VCL before these, until what has the new ones is in use.
    before: Sets | None = None
    own_before: str | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    #: What of the service cannot be read or believed: kind -> one sentence.
    faults: dict[str, str] = field(default_factory=dict)
    #: Members that have left and may still be in what Varnish uses: (version, endpoint).
    left: frozenset[tuple[str, str]] = frozenset()
    #: When the members that have changed are to be taken.
    settles_at: float | None = None
    taken_at: float = float("-inf")


class Catalog:
    def __init__(
        self,
        known: Mapping[str, Service],
        on_held: Callable[[str, Mapping[str, str]], None] = lambda _service, _versions: None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``on_held`` is told of sets that are not believed, and when they are again; ``chance`` is from 0 to 1."""
        self._services = dict(known)
        self._on_held = on_held
        self._clock = clock
        self._chance = chance
        self._due: float | None = None
        self._strangers: dict[str, Mapping[str, str]] = {}

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._services))

    def versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric. Safe to call from another thread."""
        return {name: frozenset((*members.wanted(s.plan), *s.plan.retired)) for name, s in list(self._services.items())}

    @property
    def strangers(self) -> Mapping[str, Mapping[str, str]]:
        """Services that cannot be served, for nothing good was ever known of them: name -> their faults."""
        return self._strangers

    def missing(self, seen: Iterable[str]) -> frozenset[str]:
        return frozenset(self._services).difference(seen)

    def lags(self, seen: Mapping[str, Seen]) -> bool:
        """Is a plan in ``seen`` older than the one that is known?"""
        return any(s.plan and n in self._services and self._is_older(n, s.plan) for n, s in seen.items())

    def take(self, seen: Mapping[str, Seen], removed: frozenset[str]) -> float | None:
        """Adopt what ZooKeeper says, as far as it can be believed. ``removed``: services that an operator removed.
        Seconds until the rest of it can be taken; None where nothing waits."""
        self._due, self._strangers = None, {}
        for name in self.missing(seen):
            if name in removed:
                del self._services[name]
            else:
                sentence = f"{name} vanished from ZooKeeper and nobody removed it: kept as it was"
                self._services[name].faults = {"vanished": sentence}
        for name, s in seen.items():
            self._take(name, s)
        return self._due

    def commit(self, name: str, seen: Plan) -> bool:
        """Adopt ``seen`` where it is the known plan with its staged change committed; was it?"""
        known = self._services[name]
        if known.plan.staged is None or seen.epoch <= known.plan.epoch:
            return False
        if seen.routing() != known.plan.committed().routing():
            return False
        known.plan = seen
        return True

    def take_own(self, name: str, text: str) -> None:
        """Adopt the operator's own VCL. What was there before serves until the new one is ready, if ever it is."""
        s = self._services[name]
        if s.own is not None and text != s.own:
            s.own_before = s.own if s.own_before is None else s.own_before
        s.own = text

    def settled(self, name: str) -> None:
        """The newest members and own VCL are in use: those before them are not needed any more."""
        s = self._services[name]
        s.before, s.own_before = None, None

    def _is_older(self, name: str, seen: Plan) -> bool:
        return seen.epoch < self._services[name].plan.epoch

    def _take(self, name: str, seen: Seen) -> None:
        known = self._services.get(name)
        if seen.plan is None or "config" in seen.faults:
            if known:
                known.faults = dict(seen.faults) or {"vanished": f"{name} has no plan any more: kept the last good one"}
            elif seen.faults:
                self._strangers[name] = seen.faults
            else:
                self._services[name] = Service(seen.config or ServiceConfig(), Plan(), {})
            return
        if known is None:
            accepted = members.accept({}, seen.sets, seen.plan)
            self._services[name] = Service(
                seen.config or ServiceConfig(), seen.plan, accepted.sets, faults=dict(seen.faults)
            )
            return
        known.faults = dict(seen.faults)
        if seen.config is None:
            known.faults["vanished"] = f"{name} has no config any more: kept the last good one"
        else:
            known.config = seen.config
        if self._is_older(name, seen.plan):
            _log.warning("a plan went back", service=name, known=known.plan.epoch, seen=seen.plan.epoch)
        others = members.wanted(seen.plan) != members.wanted(known.plan) or seen.plan.mode != known.plan.mode
        known.plan = seen.plan
        self._take_members(name, known, members.accept(known.sets, seen.sets, seen.plan), others)

    def _take_members(self, name: str, s: Service, accepted: Accepted, at_once: bool) -> None:
        if accepted.held:
            s.faults["held"] = "; ".join(accepted.held.values())
        if accepted.held != s.held:
            for sentence in accepted.held.values():
                _log.warning("a server set shrank beyond belief", service=name, what=sentence)
            s.held = accepted.held
            self._on_held(name, s.held)
        s.left = (_endpoints(s.sets) | _endpoints(s.before or {})) - _endpoints(accepted.sets)
        if dict(accepted.sets) == dict(s.sets):
            s.settles_at = None
            return
        now = self._clock()
        if s.settles_at is None:
            s.settles_at = now + SETTLE + SPREAD * self._chance()
        due = max(s.settles_at, s.taken_at + INTERVAL)
        if not at_once and now < due:
            self._due = min(due - now, self._due if self._due is not None else due - now)
            return
        s.before = None if at_once else (s.before or s.sets)
        s.sets, s.settles_at, s.taken_at = accepted.sets, None, now


def _endpoints(sets: Sets) -> frozenset[tuple[str, str]]:
    return frozenset((v, h.endpoint) for v, hosts in sets.items() for h in hosts)
