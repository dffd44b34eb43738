"""What no plan has any more leaves no series behind."""

from __future__ import annotations

from prometheus_client import generate_latest

from edge.metrics import Metrics


def test_services_and_versions_that_are_gone_leave_no_series() -> None:
    metrics = Metrics("e")
    for service in ("app", "gone"):
        metrics.epoch(service, 3)
        metrics.backends(service, {"A": 2}, {"A": 1})
        metrics.faults(service, ["plan"])
        metrics.held(service, {"A": "why"})
        metrics.overdue(service, 1, 1)
        for version in ("A", "old", "unknown"):
            metrics.requests(service, version, "exact", True, 5)
            metrics.flips(service, version, "A", "retired", 5)
            metrics.stamps(service, "A", version, 5)
    metrics.faults("odd", ["plan"])
    metrics.keep({"app": frozenset({"A"})}, {"odd"})
    said = generate_latest(metrics.registry).decode()
    assert '"gone"' not in said and '"old"' not in said
    assert 'kind="plan",service="odd"' in said
    value = metrics.registry.get_sample_value
    labels = {"service": "app", "edge": "e", "version": "A", "outcome": "exact"}
    assert value("pinrail_edge_requests_total", labels) == 5
    assert value("pinrail_edge_requests_total", {**labels, "version": "unknown"}) == 5
    assert value("pinrail_edge_backends", {"service": "app", "edge": "e", "version": "A", "health": "sick"}) == 1
