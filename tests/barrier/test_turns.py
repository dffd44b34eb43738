"""Whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barrier import turns
from barrier.turns import Changes
from fleet.model import Enabled, EnabledBuild, Health, HostStatus, Slot, SlotState, Turn, Waves


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
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE) == Changes(grant=("b",))


def test_who_has_nothing_to_lose_comes_first() -> None:
    assert turns.decide(5, hosts(a=4, b=4), {}, ONE, down={"b"}) == Changes(grant=("b",))


def test_a_turn_that_is_done_ends_when_nobody_waits_for_one() -> None:
    held = {"a": TURN, "b": TURN}
    assert turns.decide(5, hosts(a=5, b=4, c=4), held, ONE) == Changes()
    assert turns.decide(5, hosts(a=5, b=5, c=4), held, ONE) == Changes(grant=("c",))
    assert turns.decide(5, hosts(a=5, b=4), held, ONE) == Changes(revoke=("a",))


def test_a_paused_rollout_gives_no_turns_but_takes_them_back() -> None:
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE, granting=False) == Changes()
    assert turns.decide(5, hosts(a=5), {"a": TURN}, ONE, granting=False) == Changes(revoke=("a",))


def test_at_the_first_release_everybody_goes() -> None:
    assert turns.decide(5, hosts(a=0, b=0, c=0), {}, ONE, everyone=True) == Changes(grant=("a", "b", "c"))


def test_nothing_is_enabled_yet() -> None:
    assert turns.decide(0, hosts(a=0), {}, ONE) == Changes()


def test_a_host_that_failed_keeps_its_turn_and_lets_others_go_as_many_as_are_tolerated() -> None:
    seen = hosts(b=4, c=4) | {"a": HostStatus(name="a", serial=4, error="disk full", failed_serial=5)}
    tolerant = Waves(concurrency=1, max_failures=1)
    assert turns.decide(5, seen, {"a": TURN}, tolerant) == Changes(grant=("b",))
    assert turns.decide(5, seen, {"a": TURN}, ONE) == Changes()
    assert turns.decide(5, seen, {"a": TURN}, ONE, down={"c"}) == Changes(grant=("c",)), "it has nothing to lose"


def test_a_host_that_vanished_in_its_turn_goes_on_counting_until_it_is_given_up() -> None:
    assert turns.decide(5, hosts(b=4), {"a": TURN}, ONE) == Changes()
    assert turns.decide(5, hosts(b=4), {"a": TURN}, ONE, lost={"a"}) == Changes(grant=("b",))


def test_a_host_that_is_done_and_down_counts_as_one_that_is_not_done() -> None:
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE, down={"a"}) == Changes()
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, ONE, down={"a"}, lost={"a"}) == Changes()
    tolerant = Waves(concurrency=1, max_failures=1)
    assert turns.decide(5, hosts(a=5, b=4), {"a": TURN}, tolerant, down={"a"}, lost={"a"}) == Changes(grant=("b",))


ENABLED = Enabled(serial=5, builds=(EnabledBuild(build="C", digest="sha256:" + "0" * 64),))


@pytest.mark.parametrize(
    ("serial", "state", "live", "down"),
    [
        (5, "serving", 4, False),
        (5, "degraded", 2, False),
        (5, "degraded", 1, True),
        (5, "starting", 4, True),
        (4, "starting", 4, True),
        (4, "serving", 4, False),
    ],
)
def test_down_is_who_does_not_serve_what_it_should(serial: int, state: str, live: int, down: bool) -> None:
    slot = Slot(index=0, port=8000, build="C", state=SlotState(state), processes=4, live=live)
    seen = {"a": HostStatus(name="a", serial=serial, slots=(slot,))}
    assert turns.down(ENABLED, seen, Health()) == ({"a"} if down else set())


def test_who_waits_serves_with_whatever_it_has_and_who_is_done_needs_all() -> None:
    slot = Slot(index=0, port=8000, build="A", state=SlotState.SERVING, processes=1, live=1)
    seen = {n: HostStatus(name=n, serial=s, slots=(slot,)) for n, s in {"waits": 4, "done": 5}.items()}
    assert turns.down(ENABLED, seen, Health()) == {"done"}


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


@dataclass
class Drawn:
    seen: dict[str, HostStatus]
    held: dict[str, Turn]
    down: set[str]
    lost: set[str]
    waves: Waves

    def out(self, held: Mapping[str, Turn]) -> set[str]:
        """Hosts whose place may be empty now by this release's doing, but for those that failed in it."""
        mine = {n for n, t in held.items() if t.serial == SERIAL}
        at_work = {n for n in mine if n not in self.seen or self.seen[n].serial < SERIAL or n in self.down}
        return {n for n in at_work if n not in self.lost and (n not in self.seen or self.seen[n].error is None)}

    def decide(self) -> Changes:
        return turns.decide(SERIAL, self.seen, self.held, self.waves, down=self.down, lost=self.lost)


@st.composite
def fleets(draw: st.DrawFn) -> Drawn:
    """Any fleet in any state: done, waiting, at work, failed, gone in its turn, down after it, given up."""
    seen, held, down, lost = {}, {}, set(), set()
    for n in range(draw(st.integers(0, 30))):
        name = f"host-{n}"
        reached, error = draw(_statuses)
        if turn := draw(st.sampled_from([None, None, SERIAL - 1, SERIAL])):
            held[name] = Turn(serial=turn)
        down |= {name} if draw(st.integers(0, 4)) == 0 else set()
        if turn and draw(st.integers(0, 4)) == 0:
            lost |= {name} if draw(st.booleans()) else set()
            continue
        if turn and name in down and reached >= SERIAL:
            lost |= {name} if draw(st.booleans()) else set()
        wrong = {"error": "disk full", "failed_serial": SERIAL} if error and reached < SERIAL else {}
        seen[name] = HostStatus.model_validate({"name": name, "serial": reached, **wrong})
    concurrency = draw(st.one_of(st.none(), st.integers(1, 10)))
    waves = Waves(percent=draw(st.integers(1, 100)), concurrency=concurrency, max_failures=draw(st.integers(0, 10)))
    return Drawn(seen, held, down, lost, waves)


@given(fleets())
@settings(max_examples=500, deadline=None)
def test_never_more_hosts_are_down_at_once_than_may_be(fleet: Drawn) -> None:
    """What is left is the least that serves: all but the limit, and but those that failed, which have a limit too."""
    changes, held = fleet.decide(), fleet.held
    after = {n: t for n, t in held.items() if n not in changes.revoke} | dict.fromkeys(changes.grant, TURN)
    most = turns.limit(fleet.waves, len(fleet.seen))
    assert len(fleet.out(after)) <= max(most, len(fleet.out(held)))
    assert not {n for n in changes.grant if fleet.seen[n].serial >= SERIAL}, "a host that is done is left alone"
    at_work = {n for n in fleet.out(held) if n not in fleet.seen or fleet.seen[n].serial < SERIAL}
    assert not set(changes.revoke) & at_work, "nobody's turn ends while it is at work"
    failed = [n for n, h in fleet.seen.items() if n in held and held[n].serial == SERIAL and turns.failed(h, SERIAL)]
    failed += [n for n in fleet.down & fleet.lost if n in fleet.seen and held[n].serial == SERIAL]
    if len(failed) > fleet.waves.max_failures:
        assert fleet.down.issuperset(changes.grant), "no more is put at stake where too many have failed"


@given(fleets())
@settings(max_examples=200, deadline=None)
def test_everybody_gets_a_turn_where_all_goes_well(fleet: Drawn) -> None:
    """... and on the whole way no more are down than may be; in the end there are no turns."""
    seen = {n: HostStatus(name=n, serial=h.serial) for n, h in fleet.seen.items()}
    held, waves = {n: t for n, t in fleet.held.items() if n in seen and t.serial < SERIAL}, fleet.waves
    for _ in range(2 * len(seen) + 1):
        changes = turns.decide(SERIAL, seen, held, waves)
        held = {n: t for n, t in held.items() if n not in changes.revoke} | dict.fromkeys(changes.grant, TURN)
        at_work = sorted(n for n in held if seen[n].serial < SERIAL)
        assert len(at_work) <= turns.limit(waves, len(seen))
        if at_work:
            seen[at_work[0]] = HostStatus(name=at_work[0], serial=SERIAL)
    assert all(h.serial == SERIAL for h in seen.values())
    assert not held
