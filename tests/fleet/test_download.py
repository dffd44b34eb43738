"""How fast a download may be. That it is right is shown against a real store (``test_s3``, ``hostagent/test_kept``)."""

from __future__ import annotations

from pytest import approx

from fleet.download import Pace


def test_a_pace_is_kept_by_all_who_share_it_and_nothing_is_saved_up() -> None:
    now = [100.0]
    pace = Pace(1000, lambda: now[0])
    assert pace.take(500) == approx(0.5)
    assert pace.take(500) == approx(1.0), "another's bytes count too"
    now[0] += 1.0
    assert pace.take(100) == approx(0.1)
    now[0] += 60
    assert pace.take(2000) == approx(2.0), "a minute without a download is no reason to hurry"
