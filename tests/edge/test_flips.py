"""From varnishlog's lines to metrics: each record once, labels that stay few."""

from __future__ import annotations

from prometheus_client import generate_latest

from edge.flips import count, records
from edge.metrics import Metrics

KNOWN = {"app": frozenset({"A", "B"})}


def line(record: str) -> str:
    return f"     32770 VCL_Log        c {record}\n"


def test_equal_records_are_added_up() -> None:
    metrics = Metrics("e")
    count(records((line("pinrail app B exact B - -") * 2).encode()), KNOWN, metrics)
    labels = {"service": "app", "edge": "e", "version": "B", "outcome": "exact"}
    assert metrics.registry.get_sample_value("pinrail_edge_requests_total", labels) == 2


def test_flips_have_from_to_and_cause() -> None:
    metrics = Metrics("e")
    chunk = line("pinrail app B forced A retired -") + line("pinrail app B back A generation doc")
    count(records(chunk.encode()), KNOWN, metrics)
    value = metrics.registry.get_sample_value
    assert value(
        "pinrail_edge_flips_total", {"service": "app", "edge": "e", "from": "A", "to": "B", "cause": "retired"}
    )
    assert value(
        "pinrail_edge_flips_total", {"service": "app", "edge": "e", "from": "A", "to": "B", "cause": "generation"}
    )
    assert value("pinrail_edge_documents_total", {"service": "app", "edge": "e", "version": "B"}) == 1


def test_names_that_no_plan_has_are_unknown_and_foreign_records_are_ignored() -> None:
    metrics = Metrics("e")
    chunk = "".join(
        line(r)
        for r in (
            "pinrail app zzz fault yyy mixed -",
            "pinrail app - none - - -",
            "pinrail other B exact B - -",
            "pinrail app B invented B - -",
            "pinrail app B",
            "something of the operator's",
            "pinrail-stamp app A zzz",
        )
    )
    count(records(chunk.encode()), KNOWN, metrics)
    value = metrics.registry.get_sample_value
    names = {"service": "app", "edge": "e"}
    assert value("pinrail_edge_requests_total", {**names, "version": "unknown", "outcome": "fault"}) == 1
    assert value("pinrail_edge_requests_total", {**names, "version": "none", "outcome": "none"}) == 1
    assert value("pinrail_edge_stamp_mismatches_total", {**names, "wanted": "A", "got": "unknown"}) == 1
    assert value("pinrail_edge_flips_total", {**names, "from": "unknown", "to": "unknown", "cause": "mixed"})
    assert b'"other"' not in generate_latest(metrics.registry)
    assert b"invented" not in generate_latest(metrics.registry)


def test_an_unfinished_line_is_not_counted() -> None:
    assert not records(b"     32770 VCL_Log        c pinrail app B exact B - -")
