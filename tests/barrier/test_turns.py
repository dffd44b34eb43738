"""Whose turn it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


SERIAL = 5
_statuses = st.builds(
    lambda reached, failed: (reached, failed),
    st.integers(SERIAL - 2, SERIAL),
    st.booleans(),
)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[dict[str, HostStatus], dict[str, Turn], set[str], Waves]:
    """Any fleet in any state: done, waiting, at work, failed, gone in its turn, given up."""
    seen, held, lost = {}, {}, set()
    for n in range(draw(st.integers(0, 30))):
        name = f"host-{n}"
        reached, error = draw(_statuses)
        if turn := draw(st.sampled_from([None, None, SERIAL - 1, SERIAL])):
            held[name] = Turn(serial=turn)
        if turn and draw(st.integers(0, 4)) == 0:
            lost |= {name} if draw(st.booleans()) else set()
            continue
        wrong = {"error": "disk full", "failed_serial": SERIAL} if error and reached < SERIAL else {}
        seen[name] = HostStatus.model_validate({"name": name, "serial": reached, **wrong})
    waves = Waves(percent=draw(st.integers(1, 100)), concurrency=draw(st.one_of(st.none(), st.integers(1, 10))))
    return seen, held, lost, waves


def down(seen: Mapping[str, HostStatus], held: Mapping[str, Turn], lost: Collection[str]) -> set[str]:
    """Hosts whose place may be empty now by this release's doing, but for those that failed in it."""
    at_work = {n for n, t in held.items() if t.serial == SERIAL and (n not in seen or seen[n].serial < SERIAL)}
    return {n for n in at_work if (n not in lost if n not in seen else seen[n].error is None)}


@given(fleets())
@settings(max_examples=500, deadline=None)
def test_never_more_hosts_are_down_at_once_than_may_be(
    fleet: tuple[dict[str, HostStatus], dict[str, Turn], set[str], Waves],
) -> None:
    """What is left is the least that serves: all but the limit, and but those that failed, which have a limit too."""
    seen, held, lost, waves = fleet
    changes = turns.decide(SERIAL, seen, held, waves, lost=lost)
    after = {n: t for n, t in held.items() if n not in changes.revoke} | dict.fromkeys(changes.grant, TURN)
    assert len(down(seen, after, lost)) <= max(turns.limit(waves, len(seen)), len(down(seen, held, lost)))
    assert not {n for n in changes.grant if seen[n].serial >= SERIAL}, "a host that is done is left alone"
    assert not set(changes.revoke) & down(seen, held, lost), "nobody's turn ends while it is at work"


@given(fleets())
@settings(max_examples=200, deadline=None)
def test_everybody_gets_a_turn_where_all_goes_well(
    fleet: tuple[dict[str, HostStatus], dict[str, Turn], set[str], Waves],
) -> None:
    """... and on the whole way no more are down than may be."""
    seen = {n: HostStatus(name=n, serial=h.serial) for n, h in fleet[0].items()}
    held, waves = {n: t for n, t in fleet[1].items() if n in seen and t.serial < SERIAL}, fleet[3]
    for _ in range(2 * len(seen) + 1):
        changes = turns.decide(SERIAL, seen, held, waves)
        held = {n: t for n, t in held.items() if n not in changes.revoke} | dict.fromkeys(changes.grant, TURN)
        assert len(down(seen, held, ())) <= turns.limit(waves, len(seen))
        if (at_work := next(iter(sorted(down(seen, held, ()))), None)) is not None:
            seen[at_work] = HostStatus(name=at_work, serial=SERIAL)
    assert all(h.serial == SERIAL for h in seen.values())
