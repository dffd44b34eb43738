"""When the edge looks again before its loop would."""

from __future__ import annotations

import itertools

from edge.revisit import Revisit
from tests.conftest import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def looks(revisit: Revisit, clock: Clock, seconds: float, asked: object = 1) -> list[float]:
    """The instants at which something unfinished is looked at, by timer or else by the loop (every 2 s)."""
    began, found = clock.now, []
    while clock.now < began + seconds:
        revisit.begin()
        revisit.unfinished("app", asked)
        found.append(clock.now - began)
        clock.now += 2.0 if revisit.due is None else revisit.due
    return found


def test_what_stays_unfinished_is_left_to_the_loop_in_the_end() -> None:
    clock = Clock()
    revisit = Revisit(lambda: None, 2.0, clock)
    found = looks(revisit, clock, 60)
    assert found[:4] == [0, 0.25, 0.5, 0.75]
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert gaps == sorted(gaps) and gaps[-1] == 2.0
    assert sum(at < 10 for at in found) < 20
    # Never later than a quarter of what it has lasted, as long as that is less than the loop's own interval.
    assert all(gap <= max(0.25, at / 4) for at, gap in zip(found, gaps, strict=False) if at < 8)


def test_what_is_asked_anew_is_looked_at_often_again() -> None:
    clock = Clock()
    revisit = Revisit(lambda: None, 2.0, clock)
    looks(revisit, clock, 60)
    assert looks(revisit, clock, 1, asked=2)[:3] == [0, 0.25, 0.5]
    looks(revisit, clock, 60, asked=2)
    revisit.finished("app")
    assert looks(revisit, clock, 1, asked=2)[:3] == [0, 0.25, 0.5]


def test_the_nearest_wins_and_each_cycle_says_anew() -> None:
    revisit = Revisit(lambda: None, 2.0)
    revisit.within(0.5)
    revisit.within(0.1)
    revisit.within(1.0)
    assert revisit.due == 0.1
    revisit.begin()
    assert revisit.due is None
    revisit.within(5.0)
    assert revisit.due is None


def test_it_wakes_the_loop_when_something_is_due_and_only_then() -> None:
    woken: list[int] = []
    revisit = Revisit(lambda: woken.append(1), 2.0)
    revisit.within(0.0)
    revisit.schedule()
    eventually("it is woken", lambda: woken)
    revisit.begin()
    revisit.within(1.9)
    revisit.schedule()
    revisit.begin()
    revisit.schedule()
    assert len(woken) == 1
