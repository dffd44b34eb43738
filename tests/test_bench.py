"""What ``make bench`` says of what it measured; the measuring itself is not a test's matter."""

from __future__ import annotations

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
