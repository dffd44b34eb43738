"""Every metric of an edge, in one place. The agent and the counter call these; nothing reads them back."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# When each counter was made is one more series for each of them, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    def __init__(self, edge: str) -> None:
        self.registry = CollectorRegistry()
        self._edge = edge
        r = self.registry
        self._requests = Counter(
            "pinrail_edge_requests_total",
            "Client requests by the version that answered and how it was chosen",
            ["service", "edge", "version", "outcome"],
            registry=r,
        )
        self._flips = Counter(
            "pinrail_edge_flips_total",
            "Client requests that another version answered than the one they came from",
            ["service", "edge", "from", "to", "cause"],
            registry=r,
        )
        self._documents = Counter(
            "pinrail_edge_documents_total",
            "Documents among the client requests",
            ["service", "edge", "version"],
            registry=r,
        )
        self._stamps = Counter(
            "pinrail_edge_stamp_mismatches_total",
            "Answers of a host that were refused because it stamped another version",
            ["service", "edge", "wanted", "got"],
            registry=r,
        )
        self._overruns = Counter(
            "pinrail_edge_log_overruns_total", "Times that varnishlog lost records", ["edge"], registry=r
        ).labels(edge)
        self._gaps = Counter(
            "pinrail_edge_log_gaps_total", "Times that counting was interrupted", ["edge"], registry=r
        ).labels(edge)
        self._counting = Gauge("pinrail_edge_counting", "1 while each request is counted", ["edge"], registry=r).labels(
            edge
        )
        self._epoch = Gauge(
            "pinrail_edge_epoch", "Epoch that new requests use, as Varnish confirms it", ["service", "edge"], registry=r
        )
        self._load = Histogram(
            "pinrail_edge_load_seconds",
            "Time of each phase of a load",
            ["phase"],
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
            registry=r,
        )
        self._backends = Gauge(
            "pinrail_edge_backends",
            "Backends by this edge's own probes",
            ["service", "edge", "version", "health"],
            registry=r,
        )
        self._held = Gauge(
            "pinrail_edge_serverset_held",
            "1 while a server set that shrank beyond belief is not applied",
            ["service", "edge", "version"],
            registry=r,
        )
        self._faults = Gauge(
            "pinrail_edge_fault",
            "1 while something of a service cannot be read, believed or loaded; the ack and the log say what",
            ["service", "edge", "kind"],
            registry=r,
        )
        self._overdue = Counter(
            "pinrail_edge_overdue_total",
            "Requests still on a discarded VCL when nobody waited for it any more: cut, or left to end by themselves",
            ["service", "edge", "end"],
            registry=r,
        )
        self._hooks = Counter(
            "pinrail_edge_hooks_total",
            "Hooks of the operator's that ran, or should have, after a commit",
            ["edge", "hook", "result"],
            registry=r,
        )
        self._age = Gauge(
            "pinrail_edge_last_good_age_seconds",
            "Seconds since what Varnish serves was last confirmed to be the latest plan",
            ["edge"],
            registry=r,
        ).labels(edge)

    def age(self, seconds: Callable[[], float]) -> None:
        self._age.set_function(seconds)

    def requests(self, service: str, version: str, outcome: str, document: bool, count: int) -> None:
        self._requests.labels(service, self._edge, version, outcome).inc(count)
        if document:
            self._documents.labels(service, self._edge, version).inc(count)

    def flips(self, service: str, origin: str, to: str, cause: str, count: int) -> None:
        self._flips.labels(service, self._edge, origin, to, cause).inc(count)

    def stamps(self, service: str, wanted: str, got: str, count: int) -> None:
        self._stamps.labels(service, self._edge, wanted, got).inc(count)

    def overrun(self) -> None:
        self._overruns.inc()

    def gap(self) -> None:
        self._gaps.inc()

    def counting(self, each: bool) -> None:
        self._counting.set(each)

    def overdue(self, service: str, cut: int, left: int) -> None:
        self._overdue.labels(service, self._edge, "cut").inc(cut)
        self._overdue.labels(service, self._edge, "left").inc(left)

    def hook(self, program: str, good: bool) -> None:
        self._hooks.labels(self._edge, program, "ok" if good else "failed").inc()

    def epoch(self, service: str, epoch: int) -> None:
        self._epoch.labels(service, self._edge).set(epoch)

    def load(self, phase: str, seconds: float) -> None:
        self._load.labels(phase).observe(seconds)

    def backends(self, service: str, members: Mapping[str, int], healthy: Mapping[str, int]) -> None:
        """Replaces what was said of ``service`` before: versions that went away leave no series."""
        self._forget(self._backends, service)
        for version, count in members.items():
            good = healthy.get(version, 0)
            self._backends.labels(service, self._edge, version, "healthy").set(good)
            self._backends.labels(service, self._edge, version, "sick").set(count - good)

    def held(self, service: str, versions: Mapping[str, str]) -> None:
        self._forget(self._held, service)
        for version in versions:
            self._held.labels(service, self._edge, version).set(1)

    def faults(self, service: str, kinds: Iterable[str]) -> None:
        self._forget(self._faults, service)
        for kind in kinds:
            self._faults.labels(service, self._edge, kind).set(1)

    def keep(self, known: Mapping[str, Container[str]], faulty: Container[str] = ()) -> None:
        """Forget every service but the ``known`` ones (a ``faulty`` one keeps its faults), and every version of theirs
        but those: what no plan has leaves no series."""
        for gauge in (self._epoch, self._backends, self._held):
            self._drop(gauge, lambda labels: labels["service"] not in known)
        self._drop(self._faults, lambda labels: labels["service"] not in known and labels["service"] not in faulty)

        def gone(labels: Mapping[str, str]) -> bool:
            service = known.get(labels["service"])
            versions = [labels[n] for n in ("version", "from", "to", "wanted", "got") if n in labels]
            return service is None or any(v not in service and v not in ("none", "unknown") for v in versions)

        for counter in (self._requests, self._flips, self._documents, self._stamps):
            self._drop(counter, gone)
        self._drop(self._overdue, lambda labels: labels["service"] not in known)

    @classmethod
    def _forget(cls, gauge: Gauge, service: str) -> None:
        cls._drop(gauge, lambda labels: labels["service"] == service)

    @staticmethod
    def _drop(metric: Gauge | Counter, gone: Callable[[Mapping[str, str]], bool]) -> None:
        series = {tuple(s.labels[n] for n in metric._labelnames) for m in metric.collect() for s in m.samples}
        for values in series:
            if gone(dict(zip(metric._labelnames, values, strict=True))):
                metric.remove(*values)
