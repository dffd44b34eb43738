"""What ``make bench`` says of what it measured; and that thin edges and hosts go through a rollout, a few of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import scale, transfer
from bench.__main__ import _page
from bench.measure import Round, Samples, compared


def test_a_row_has_medians_ranges_and_ratios_of_the_same_round() -> None:
    pairs = [(Round(90, 10), Round(100, 20)), (Round(40, 12), Round(50, 20)), (Round(190, 11), Round(200, 20))]
    row = compared("hit", pairs, "bare", 0.93)
    assert row.ours == "90 (40–190) requests/s"
    assert row.other == "100 (50–200) requests/s, bare"
    assert row.rate and row.rate.text(".2f") == "0.90 (0.80–0.95)"
    assert row.cpu == Samples((0.5, 0.6, 0.55))


def test_the_page_says_how_it_was_made() -> None:
    row = compared("hit", [(Round(90, 10), Round(100, 20))], "bare", 0.93)
    page = _page([row], "make bench", 2, 5, 1.0, "Varnish 7.1.1")
    assert "Written by `make bench`" in page
    assert "| hit | 90 (90–90) requests/s | 100 (100–100) requests/s, bare | 0.90 (0.90–0.90) | " in page
    assert "; Varnish 7.1.1." in page
    assert "| ≥ 0.93 |" in page


def test_a_small_build_goes_to_hosts_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FILES", 200)
    monkeypatch.setattr(transfer, "BYTES", 50_000)
    rows = {row.name: row for row in transfer.rows(tmp_path / "t", rounds=1)}
    for name, row in rows.items():
        share = re.search(r"\(([0-9.]+)%\)", row.ours)
        if share and "1 %" in name:
            assert float(share[1]) <= 5, row
        elif share:
            assert float(share[1]) == 100, row
    assert len(rows) == 5 and all(row.rate for row in list(rows.values())[1:])


def test_a_small_fleet_of_thin_parts_goes_through_rollouts(tmp_path: Path) -> None:
    """As many sessions as that are one: each edge asks as much in a fleet of twenty as in one of five."""
    few, more = scale.measure(tmp_path, (5, 20), 50)
    assert (few.edges, more.edges) == (5, 20)
    for m in (few, more):
        assert set(m.steps) == {"withdraw", "install", "offer", "switch"}
        assert 0 < sum(m.steps.values()) <= m.seconds
        # A host has a turn, a slot that changes hands and something to say of it; an edge a few plans to ack.
        assert m.of_hosts.requests >= 50 * 5
        assert m.of_edges.requests >= m.edges * 6
        assert m.memory > 10
    assert more.of_edges.requests / 20 <= 1.5 * few.of_edges.requests / 5
