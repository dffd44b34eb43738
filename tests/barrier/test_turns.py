"""Whose turn it is."""

from __future__ import annotations

import pytest

from barrier import turns
from barrier.turns import Changes
from fleet.model import HostStatus, Turn, Waves


def hosts(**serials: int) -> dict[str, HostStatus]:
    return {n: HostStatus(name=n, serial=s) for n, s in serials.items()}


ONE = Waves(concurrency=1)
TURN = Turn(serial=5)


@pytest.mark.parametrize(("n", "percent", "limit"), [(3, 15, 1), (0, 15, 1), (20, 15, 3), (10, 100, 10)])
def test_the_limit_is_a_share_and_never_none(n: int, percent: int, limit: int) -> None:
    assert turns.limit(Waves(percent=percent), n) == limit


def test_as_many_as_may_and_those_first_that_come_first() -> None:
    waiting = hosts(c=4, a=4, b=4, done=5)
    assert turns.decide(5, waiting, {}, ONE) == Changes(grant=("a",))
    assert turns.decide(5, waiting, {}, Waves(concurrency=2)) == Changes(grant=("a", "b"))
    assert turns.decide(5, waiting, {"a": TURN}, ONE) == Changes()
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE) == Changes(grant=("b",), revoke=("a",))


def test_a_paused_rollout_gives_no_turns_but_takes_them_back() -> None:
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE, granting=False) == Changes(revoke=("a",))


def test_at_the_first_release_everybody_goes() -> None:
    assert turns.decide(5, hosts(a=0, b=0, c=0), {}, ONE, everyone=True) == Changes(grant=("a", "b", "c"))


def test_nothing_is_enabled_yet() -> None:
    assert turns.decide(0, hosts(a=0), {}, ONE) == Changes()


def test_a_host_that_failed_keeps_its_turn_and_lets_others_go() -> None:
    seen = hosts(b=4) | {"a": HostStatus(name="a", serial=4, error="disk full", failed_serial=5)}
    assert turns.decide(5, seen, {"a": TURN}, ONE) == Changes(grant=("b",))


def test_a_host_that_vanished_in_its_turn_goes_on_counting() -> None:
    assert turns.decide(5, hosts(b=4), {"a": TURN}, ONE) == Changes()


def test_a_turn_of_an_older_serial_is_worth_nothing() -> None:
    assert turns.decide(6, hosts(a=4, b=4), {"b": TURN, "gone": TURN}, ONE) == Changes(
        grant=("a",), revoke=("b", "gone")
    )
