"""What an edge believes, without ZooKeeper: the clock and what was read are given."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from edge.catalog import INTERVAL, SETTLE, SPREAD, Catalog
from edge.members import Host
from edge.plan import Want
from edge.renderings import Renderings
from edge.view import Seen
from fleet.model import Plan, ServiceConfig, Staged

PLAN = Plan(epoch=5, generation=1, default="A", serving=("A",))
OFFER = Plan(epoch=6, generation=1, default="A", serving=("B", "A"))
NOBODY: frozenset[str] = frozenset()


def hosts(*numbers: int) -> tuple[Host, ...]:
    return tuple(Host(f"10.0.0.{n}", 8000) for n in numbers)


class Bed:
    def __init__(self) -> None:
        self.now = 0.0
        self.held: list[Mapping[str, str]] = []
        self.chance = 0.0
        self.catalog = Catalog(
            {}, lambda _, versions: self.held.append(versions), lambda: self.now, lambda: self.chance
        )

    def see(self, plan: Plan | None = PLAN, fault: str | None = None, **sets: tuple[Host, ...]) -> float | None:
        faults = {"plan": fault} if fault else {}
        return self.catalog.take({"app": Seen(ServiceConfig(), plan, sets, faults)}, NOBODY)

    @property
    def members(self) -> dict[str, tuple[Host, ...]]:
        return dict(self.catalog["app"].sets)


def test_the_first_set_is_taken_as_it_is_and_changes_together() -> None:
    bed = Bed()
    assert bed.see(A=hosts(1)) is None
    assert bed.members == {"A": hosts(1)}
    bed.now = 10.0
    assert bed.see(A=hosts(1, 2)) == pytest.approx(SETTLE)
    bed.now += SETTLE
    assert bed.see(A=hosts(1, 2, 3)) is None
    assert bed.members == {"A": hosts(1, 2, 3)}
    assert bed.catalog["app"].before == {"A": hosts(1)}
    assert bed.see(A=hosts(1, 2, 3, 4)) == pytest.approx(INTERVAL)
    bed.catalog.settled("app")
    assert bed.catalog["app"].before is None


def test_edges_do_not_all_take_a_change_at_once() -> None:
    due = []
    for chance in (0.0, 0.5, 1.0):
        bed = Bed()
        bed.chance = chance
        bed.see(A=hosts(1))
        bed.now = 10.0
        due.append(bed.see(A=hosts(1, 2)))
        bed.now += SETTLE / 2
        bed.chance = 0.9
        assert bed.see(A=hosts(1, 2, 3)) == pytest.approx((due[-1] or 0) - SETTLE / 2), "drawn once a change"
    assert due == pytest.approx([SETTLE, SETTLE + SPREAD / 2, SETTLE + SPREAD])


def test_who_left_is_named_before_the_set_is_taken() -> None:
    bed = Bed()
    bed.see(A=hosts(1, 2, 3))
    bed.now = 10.0
    assert bed.see(A=hosts(1, 2))
    assert bed.members == {"A": hosts(1, 2, 3)}
    assert bed.catalog["app"].left == {("A", "10.0.0.3:8000")}


def test_who_left_is_named_until_what_has_him_is_not_in_use_any_more() -> None:
    bed = Bed()
    bed.see(A=hosts(1, 2, 3))
    bed.now = 10.0
    bed.see(A=hosts(1, 2))
    bed.now += SETTLE
    for _ in range(2):  # it is taken, and then the VCL without him is being loaded
        assert bed.see(A=hosts(1, 2)) is None
        assert bed.catalog["app"].left == {("A", "10.0.0.3:8000")}
    bed.see(A=hosts(1, 2, 3))
    assert not bed.catalog["app"].left, "he is back"
    bed.see(A=hosts(1, 2))
    bed.catalog.settled("app")
    bed.see(A=hosts(1, 2))
    assert not bed.catalog["app"].left


def test_another_version_is_taken_at_once() -> None:
    bed = Bed()
    bed.see(A=hosts(1))
    assert bed.see(OFFER, A=hosts(1), B=hosts(2)) is None
    assert bed.members == {"A": hosts(1), "B": hosts(2)}
    assert bed.catalog["app"].before is None


def test_a_set_that_empties_is_held_and_that_is_said_once() -> None:
    bed = Bed()
    bed.see(A=hosts(1, 2))
    bed.see(A=())
    bed.see(A=())
    assert bed.members == {"A": hosts(1, 2)}
    assert [set(h) for h in bed.held] == [{"A"}]
    bed.see(A=hosts(1, 2))
    assert bed.held[-1] == {}


def test_what_vanished_or_broke_stays_and_what_was_removed_goes() -> None:
    bed = Bed()
    bed.see(A=hosts(1))
    bed.see(None, "the plan of app is malformed", A=())
    assert bed.catalog["app"].faults == {"plan": "the plan of app is malformed"}
    assert bed.catalog["app"].plan == PLAN
    assert bed.catalog.missing({}) == {"app"}
    bed.catalog.take({}, NOBODY)
    assert "vanished" in bed.catalog["app"].faults["vanished"]
    bed.see(A=hosts(1))
    assert not bed.catalog["app"].faults
    bed.catalog.take({}, frozenset({"app"}))
    assert list(bed.catalog) == []


def test_a_plan_that_is_older_is_noticed_and_then_adopted() -> None:
    bed = Bed()
    bed.see(A=hosts(1))
    older = PLAN.model_copy(update={"epoch": 4})
    assert bed.catalog.lags({"app": Seen(ServiceConfig(), older, {})})
    assert not bed.catalog.lags({"app": Seen(ServiceConfig(), PLAN, {})})
    bed.see(older, A=hosts(1))
    assert bed.catalog["app"].plan.epoch == 4


# -- and what follows of it --


def rendered(bed: Bed, renderings: Renderings) -> Want:
    (want,) = renderings.wants(bed.catalog)
    return want


def test_nothing_is_rendered_twice() -> None:
    bed, took = Bed(), list[float]()
    renderings = Renderings({}, took.append)
    bed.see(A=hosts(1))
    assert rendered(bed, renderings) is rendered(bed, renderings)
    assert len(took) == 1
    bed.see(A=hosts(1, 2))
    bed.now += SETTLE
    bed.see(A=hosts(1, 2))
    assert len(rendered(bed, renderings).current) == 2
    bed.catalog.settled("app")
    assert len(rendered(bed, renderings).current) == 1


def test_epochs_follow_the_plan_forward_and_are_forgotten_when_it_goes_back() -> None:
    bed = Bed()
    renderings = Renderings({"app": {"v_app_old": 3}, "gone": {"v_gone_x": 9}})
    bed.see(A=hosts(1))
    first = rendered(bed, renderings).current[0].name
    assert renderings.epochs() == {"v_app_old": 3, first: 5}
    bed.see(OFFER, A=hosts(1), B=hosts(2))
    want = rendered(bed, renderings)
    assert renderings.epochs() == {"v_app_old": 3, first: 5, want.current[0].name: 6}
    assert renderings.prune(want, {first}) == {first: 5, want.current[0].name: 6}
    bed.see(A=hosts(1))
    rendered(bed, renderings)
    assert renderings.epochs() == {first: 5}


def test_a_commit_and_a_new_member_render_only_what_is_new() -> None:
    bed, renderings = Bed(), Renderings({})
    staged = OFFER.model_copy(update={"staged": Staged(generation=2, default="B")})
    bed.see(staged, A=hosts(1), B=hosts(2))
    (before,) = renderings.wants(bed.catalog)
    committed = staged.committed().model_copy(update={"epoch": 7, "staged": Staged(generation=3, default="A")})
    bed.see(committed, A=hosts(1), B=hosts(2))
    (after,) = renderings.wants(bed.catalog)
    assert after.current[0] is before.staged[0]
    bed.now = 100.0
    bed.see(committed, A=hosts(1, 3), B=hosts(2))
    bed.now += SETTLE
    bed.see(committed, A=hosts(1, 3), B=hosts(2))
    (joined,) = renderings.wants(bed.catalog)
    assert [joined.current[-1], joined.staged[-1]] == [after.current[0], after.staged[0]]
    assert joined.current[-1] is after.current[0] and joined.staged[-1] is after.staged[0]
