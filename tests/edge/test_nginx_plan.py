"""What the nginx agent does next and acknowledges, from values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.nginx import plan, render
from edge.nginx.look import Look, Marker, NotOurs, Routed, marker
from edge.nginx.plan import Commit, Forget, Memory, Reload, Want
from edge.nginx.render import Configuration, Part
from fleet.model import Ack

ONE, TWO, THREE = "1" * 16, "2" * 16, "3" * 16
NOW = Part("app", "part", ONE, TWO, {})
CONFIGURATION = Configuration("a" * 16, "", (NOW,))
NEXT = Configuration("b" * 16, "", (replace(NOW, current=TWO, staged=THREE),))
WANT, WANT_NEXT = Want("app", 5, NOW), Want("app", 6, NEXT.parts[0])
FLAG = render.commit_flag("app", TWO)


def look(routed: Routed | None = None, *, leaving: frozenset[int] = frozenset(), name: str = "a" * 16) -> Look:
    services = {"app": routed or Routed("part", ONE, TWO, committed=False)}
    return Look(10, "9", frozenset({11, 12}), leaving, Marker(name, services))


COMMITTED = Routed("part", ONE, TWO, committed=True)
ALL_ON_ONE = Memory(routed={11: frozenset({("app", ONE)}), 12: frozenset({("app", ONE)})})


def decide(
    want: Want,
    wanted: Configuration,
    seen: Look,
    flags: frozenset[str] = frozenset(),
    *,
    memory: Memory | None = None,
    complete: bool = True,
) -> tuple[plan.Action, ...]:
    return plan.decide([want], wanted, seen, flags, memory or Memory(), complete=complete)


def ack(want: Want, seen: Look, memory: Memory = ALL_ON_ONE, last_drained: int = 0) -> tuple[int, int, int]:
    a = plan.ack(want, seen, memory, last_drained=last_drained, ack_of=Ack(incarnation=""))
    return a.applied, a.staged, a.drained


def test_nothing_to_do_where_all_is_as_wanted() -> None:
    assert decide(WANT, CONFIGURATION, look()) == ()
    assert ack(WANT, look()) == (5, 5, 5)


def test_what_is_staged_is_committed_before_anything_is_loaded() -> None:
    assert decide(WANT_NEXT, NEXT, look()) == (Commit("app", TWO),)


def test_after_the_commit_comes_the_reload_that_stages_the_way_back() -> None:
    assert decide(WANT_NEXT, NEXT, look(COMMITTED), frozenset({FLAG})) == (Reload(NEXT),)
    assert ack(WANT_NEXT, look(COMMITTED), last_drained=5) == (6, 5, 5), "requests may be left on the one before"


def test_a_refused_configuration_is_not_loaded_again() -> None:
    assert decide(WANT_NEXT, NEXT, look(COMMITTED), frozenset({FLAG}), memory=Memory(refused={NEXT.name: "no"})) == ()


def test_a_plan_that_was_put_back_undoes_the_commit() -> None:
    assert decide(WANT, CONFIGURATION, look(COMMITTED), frozenset({FLAG})) == (Forget(FLAG),)


def test_flags_of_older_configurations_go_when_nobody_looks_at_them_any_more() -> None:
    stale = frozenset({"app." + THREE, "closing." + "c" * 16, "green", FLAG})
    assert decide(WANT, CONFIGURATION, look(), stale) == (Forget("app." + THREE), Forget("closing." + "c" * 16))
    assert decide(WANT, CONFIGURATION, look(leaving=frozenset({7})), stale) == ()


def test_a_configuration_looks_at_its_flags_for_as_long_as_it_has_any() -> None:
    changed = render.changed_flag(CONFIGURATION.name)
    assert decide(WANT_NEXT, NEXT, look(COMMITTED), frozenset({FLAG, changed})) == (Reload(NEXT),)
    assert decide(WANT, CONFIGURATION, look(), frozenset({changed})) == (Forget(changed),)
    of_another = render.changed_flag(NEXT.name)
    assert decide(WANT_NEXT, NEXT, look(COMMITTED), frozenset({FLAG, of_another})) == (Forget(of_another),)


def test_connections_are_kept_again_where_a_reload_is_not_wanted_any_more() -> None:
    closing = render.closing_flag(CONFIGURATION.name)
    assert decide(WANT, CONFIGURATION, look(), frozenset({closing})) == (Forget(closing),)
    fresh = replace(CONFIGURATION, name="d" * 16)
    assert decide(WANT, fresh, look(), frozenset({closing})) == (Reload(fresh),)


def test_a_flag_that_would_commit_at_once_what_is_to_be_staged_holds_the_reload() -> None:
    flags = frozenset({FLAG, render.commit_flag("app", THREE)})
    assert decide(WANT_NEXT, NEXT, look(COMMITTED, leaving=frozenset({7})), flags) == ()


def test_hosts_that_have_not_been_asked_hold_a_reload_but_not_a_new_plan() -> None:
    fresh = replace(CONFIGURATION, name="d" * 16)
    assert decide(WANT, fresh, look(), complete=False) == ()
    other = Want("app", 6, replace(NOW, current=THREE, staged=None))
    assert decide(other, fresh, look(), complete=False) == (Reload(fresh),)


@pytest.mark.parametrize(
    ("leaving", "routed", "drained"),
    [
        (frozenset(), {}, 5),
        (frozenset({7}), {7: frozenset({("app", ONE)})}, 5),  # only its hosts were others
        (frozenset({7}), {7: frozenset({("other", THREE)})}, 5),
        (frozenset({7}), {7: frozenset({("app", THREE)})}, 3),
        (frozenset({7}), {7: None}, 3),
        (frozenset({7}), {}, 3),
    ],
)
def test_drained_when_no_worker_may_hold_a_request_on_another_routing(
    leaving: frozenset[int], routed: dict[int, frozenset[tuple[str, str]] | None], drained: int
) -> None:
    memory = Memory(routed={**ALL_ON_ONE.routed, **routed})
    assert ack(WANT, look(leaving=leaving), memory, last_drained=3)[2] == drained


def test_a_service_that_is_not_loaded_is_not_applied() -> None:
    assert ack(replace(WANT, service="new"), look()) == (0, 0, 0)


def test_an_older_routing_is_acknowledged_with_its_own_epoch() -> None:
    memory = replace(ALL_ON_ONE, epochs={("app", ONE): 4})
    assert ack(Want("app", 6, replace(NOW, current=THREE, staged=None)), look(), memory, last_drained=4) == (4, 4, 4)


@pytest.mark.parametrize("text", ["", "x", "a" * 16 + " app", "<html>", "a" * 16 + " app=p/c/s:2"])
def test_what_is_no_marker_is_not_believed(text: str) -> None:
    with pytest.raises(NotOurs):
        marker(text)


def test_a_marker_says_what_is_in_force() -> None:
    found = marker(f"{'a' * 16} app=p/{ONE}/{TWO}:1 b-c=q/{THREE}/:0\n")
    assert (found.services["app"].active, found.services["b-c"].active) == (TWO, THREE)


def test_red_until_applied_and_green_while_the_fleet_waits() -> None:
    def red(want: Want, *, green: bool, rostered: bool, asked: bool = True) -> str | None:
        return plan.red(
            [want], look(), green=green, rostered=rostered, dead=frozenset(), unknown=frozenset(), asked=asked
        )

    other = Want("app", 6, replace(NOW, current=THREE))
    assert red(WANT, green=False, rostered=True) is None
    assert "app" in (red(other, green=False, rostered=True) or "")
    assert red(other, green=True, rostered=True) is None
    assert red(other, green=True, rostered=False)
    assert red(WANT, green=False, rostered=True, asked=False) == plan.NOT_ASKED
    assert red(WANT, green=True, rostered=True, asked=False) is None
    every = plan.red(
        [WANT], look(), green=True, rostered=True, dead=frozenset({"app"}), unknown=frozenset(), asked=True
    )
    assert every == "no healthy host: app"


def test_what_would_route_otherwise_is_told_from_what_only_has_other_hosts() -> None:
    """While ZooKeeper is away only the latter may be put into force."""
    other_hosts = replace(WANT, part=replace(NOW, name="other hosts"))
    assert not plan.moves([WANT], look())
    assert not plan.moves([other_hosts], look())
    assert not plan.moves([WANT_NEXT], look(COMMITTED))
    assert plan.moves([WANT_NEXT], look())
    assert plan.moves([WANT], look(COMMITTED))
    assert plan.moves([WANT, Want("new", 1, NOW)], look())
    assert plan.moves([], look())
