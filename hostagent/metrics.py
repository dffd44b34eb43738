"""The host agent's metrics, their names and nothing else. Counted at the edges of the loop, never inside a decision."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from fleet.config import BadConfig
from fleet.model import Slot

_SLOT = ("service", "host", "slot", "version", "state")
_POOL = ("service", "host", "slot", "version", "kind")

# When each counter was made is one more series for each of them, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    def __init__(self, host: str) -> None:
        self._host = host
        self.registry = CollectorRegistry()
        self._slots = Gauge("pinrail_host_slot_info", "1 for what each slot is now", _SLOT, registry=self.registry)
        self._pools = Gauge(
            "pinrail_host_pool_processes", "Processes of a slot's pool, wanted and live", _POOL, registry=self.registry
        )
        self._bytes = Counter("pinrail_host_fetch_bytes_total", "Bytes of builds fetched", registry=self.registry)
        self._seconds = Histogram("pinrail_host_fetch_seconds", "Seconds to fetch a build", registry=self.registry)
        self._failures = Counter(
            "pinrail_host_step_failures_total", "Steps that failed", ("step",), registry=self.registry
        )

    def serve(self, address: str) -> None:
        """``/metrics`` on ``host:port``, in a thread of its own. Raises BadConfig where it is taken."""
        host, _, port = address.rpartition(":")
        try:
            start_http_server(int(port), host, registry=self.registry)
        except (OSError, ValueError) as e:
            raise BadConfig(f"metrics = {address!r}: cannot listen there ({e})") from e

    def slots(self, seen: Iterable[tuple[str, Slot]]) -> None:
        """Replaces what was said before, so that a version that has gone is gone here too."""
        self._slots.clear()
        self._pools.clear()
        for service, s in seen:
            where = (service, self._host, str(s.index), s.build or "")
            self._slots.labels(*where, s.state.value).set(1)
            if s.build:
                self._pools.labels(*where, "wanted").set(s.processes)
                self._pools.labels(*where, "live").set(s.live)

    def fetched(self, size: int, seconds: float) -> None:
        self._bytes.inc(size)
        self._seconds.observe(seconds)

    def failed(self, step: str) -> None:
        self._failures.labels(step).inc()
