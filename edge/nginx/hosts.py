"""The hosts of all services, and which of them take requests: those that their own probe found well.

Where this edge hears nobody, that is more likely its own trouble than that of all hosts: those that took requests then
go on doing so. A host that refuses, or answers badly, is believed.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.catalog import Service
from edge.members import Host
from edge.nginx.probes import Health, Probes, Target
from edge.render import probe_timeout
from fleet import log

_log = log.get()


class Hosts:
    def __init__(self, probes: Probes, served: Mapping[str, Service]) -> None:
        """``served``: what was so before the agent was started. It is not taken away for one bad answer."""
        self._probes = probes
        self._served: frozenset[Target] = frozenset(_targets(served))
        self._targets: dict[Target, Host] = {}
        #: Those that take requests.
        self._last: frozenset[Target] = frozenset()
        #: Why these are kept, while nobody is heard.
        self.outage: str | None = None

    def follow(self, services: Mapping[str, Service]) -> None:
        """From now on the members of these."""
        before, self._targets = self._targets.keys(), _targets(services)
        if self._targets.keys() != before:
            self._probes.ask(self._targets, self._served)
            self._served = frozenset()  # who leaves and comes back is new

    def look(self) -> None:
        """Who takes requests from now on; is anybody heard?"""
        known = {t: h for t, h in self._probes.health().items() if t in self._targets}
        well = frozenset(t for t, h in known.items() if h is Health.WELL)
        kept = frozenset(t for t in self._last if known.get(t) is Health.SILENT)
        self._last = well | kept
        outage = f"no host answers this edge's probes: kept the {len(kept)} that did" if kept and not well else None
        if outage and not self.outage:
            _log.warning("nobody is heard", what=outage)
        self.outage = outage

    def unasked(self) -> int:
        """How many have not been heard of, and may still be in time."""
        return len(self._targets.keys() - self._probes.health().keys())

    def well(self, service: str) -> dict[str, tuple[Host, ...]]:
        """Version -> its hosts that are well."""
        known = self._probes.health()
        return self._of(service, frozenset(t for t in self._targets if known.get(t) is Health.WELL))

    def taking(self, service: str) -> dict[str, tuple[Host, ...]]:
        """Version -> its hosts that take requests."""
        return self._of(service, self._last)

    def _of(self, service: str, among: frozenset[Target]) -> dict[str, tuple[Host, ...]]:
        found: dict[str, tuple[Host, ...]] = {}
        for target, host in self._targets.items():
            if target.service == service and target in among:
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
