"""nginx's log of requests, counted: every line once, whatever happens to the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edge.metrics import Metrics
from edge.nginx.requests import Requests, records
from tests.conftest import eventually

KNOWN = {"app": frozenset({"A", "B"})}


def test_a_line_is_a_request_and_a_foreign_stamp_is_told() -> None:
    lines = Counter({b"app B exact B - d- B B-": 2, b"app A default - - - A Z-": 1, b"app - none - - -  --": 1})
    refused = records(lines, delivered=False)
    assert refused == {
        b"pinrail app B exact B - doc": 2,
        b"pinrail app A default - - -": 1,
        b"pinrail-stamp app A Z": 1,
        b"pinrail app - none - - -": 1,
    }
    assert records(lines, delivered=True)[b"pinrail app Z fault A stamp -"] == 1


def test_half_lines_and_noise_are_not_counted() -> None:
    assert records(Counter({b"": 3, b"app B": 1, b"nothing at all": 1}), delivered=False) == {}


def total(metrics: Metrics) -> float:
    return sum(
        s.value
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name == "pinrail_edge_requests_total"
    )


def test_only_what_is_new_is_counted_and_rotation_loses_nothing(tmp_path: Path) -> None:
    file, metrics = tmp_path / "requests.log", Metrics("edge-1")
    line = b"app B exact B - d- B B-\n"
    file.write_bytes(line * 5)
    reopened: list[int] = []
    requests = Requests(file, lambda: KNOWN, metrics, lambda: reopened.append(1), delivered=False, large=1000)
    requests.start()
    try:
        assert requests.counting.wait(10)
        with file.open("ab") as old:
            old.write(line * 100 + line[:7])
            old.flush()
            eventually("a hundred", lambda: total(metrics) == 100)
            eventually("a new file is asked for", lambda: reopened)
            old.write(line[7:])  # a worker that has not yet begun the new one
            old.flush()
            with file.open("ab") as new:
                new.write(line * 3)
            eventually("both", lambda: total(metrics) == 104)
        assert not file.with_name("requests.log.old").exists()
    finally:
        requests.stop()
