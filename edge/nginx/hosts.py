"""The hosts of all services, and which of them take requests: those that their own probe found well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edge.catalog import Service
from edge.members import Host
from edge.nginx.probes import Probes, Target
from edge.render import probe_timeout

#: Beyond a probe's own deadline, until its answer counts.
_GRACE = 0.3


class Hosts:
    def __init__(
        self, probes: Probes, served: Mapping[str, Service], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``served``: what was so before the agent was started. It is not taken away for one bad answer."""
        self._probes = probes
        self._served: frozenset[Target] = frozenset(_targets(served))
        self._clock = clock
        self._targets: dict[Target, Host] = {}
        self._since: dict[Target, float] = {}

    def follow(self, services: Mapping[str, Service]) -> None:
        """From now on the members of these."""
        self._targets = _targets(services)
        now = self._clock()
        if self._targets.keys() != self._since.keys():
            self._since = {t: self._since.get(t, now) for t in self._targets}
            self._probes.ask(self._targets, self._served)
            self._served = frozenset()  # who leaves and comes back is new

    def unasked(self) -> int:
        """How many have not been heard of, and may still be in time."""
        known, now = self._probes.health(), self._clock()
        return sum(1 for t in self._targets if t not in known and now - self._since[t] < t.timeout + _GRACE)

    def well(self, service: str) -> dict[str, tuple[Host, ...]]:
        """Version -> its hosts that take requests."""
        known = self._probes.health()
        found: dict[str, tuple[Host, ...]] = {}
        for target, host in self._targets.items():
            if target.service == service and known.get(target):
                found[target.version] = (*found.get(target.version, ()), host)
        return found


def _targets(services: Mapping[str, Service]) -> dict[Target, Host]:
    return {
        _target(name, s, version, host): host
        for name, s in services.items()
        for version, hosts in s.sets.items()
        for host in hosts
    }


def _target(service: str, s: Service, version: str, host: Host) -> Target:
    stamp = "any" if s.plan.mode == "mixed" else s.config.unstamped
    timeout = probe_timeout(s.config)
    return Target(
        service, version, host.address, host.port, s.config.health.path, s.config.health.interval, timeout, stamp
    )
