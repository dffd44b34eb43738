"""Plans: what no sequence of operations may break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrier import plans
from barrier.plans import PlanError
from fleet.model import RETIRED_KEPT, Plan, Ramp, Staged

BUILDS = st.sampled_from("ABCD")

Operation = Callable[[Plan], Plan]
OPERATIONS: st.SearchStrategy[tuple[str, Operation]] = st.one_of(
    st.lists(BUILDS, max_size=2).map(lambda v: ("withdraw", lambda p: plans.withdraw(p, v))),
    BUILDS.map(lambda v: ("offer", lambda p: plans.offer(p, v))),
    BUILDS.map(lambda v: ("stage", lambda p: plans.stage(p, v))),
    st.tuples(BUILDS, st.none() | st.integers(1, 99)).map(lambda a: ("ramp", lambda p: plans.ramp(p, *a))),
    st.just(("commit", plans.commit)),
    BUILDS.map(lambda v: ("mix", lambda p: plans.mix(p, v))),
    BUILDS.map(lambda v: ("unmix", lambda p: plans.unmix(p, v))),
    st.lists(BUILDS, max_size=2, unique=True).map(lambda v: ("restore", lambda p: plans.restore(p, tuple(v)))),
)


@given(st.lists(OPERATIONS, max_size=20))
def test_whatever_is_done_to_it_a_plan_keeps_its_promises(operations: list[tuple[str, Operation]]) -> None:
    plan = Plan()
    for name, operation in operations:
        try:
            after = operation(plan)
        except PlanError:
            continue
        assert after.epoch == plan.epoch + 1
        assert after.generation == plan.generation + (after.default != plan.default)
        assert plan.default is None or after.default in after.serving  # I6
        assert len(after.serving) <= plans.SERVED_AT_MOST
        assert not set(after.serving) & set(after.retired)
        assert set(plan.serving) - set(after.serving) <= set(after.retired)
        assert len(after.retired) <= RETIRED_KEPT
        if after.default != plan.default:
            assert name in ("commit", "unmix")
        plan = Plan.model_validate_json(after.encode())  # and it survives the way to ZooKeeper
        assert plan == after


STEADY = Plan(epoch=4, generation=2, default="B", serving=("B", "A"), staged=Staged(generation=3, default="A"))


def test_the_six_steps() -> None:
    withdrawn = plans.withdraw(STEADY, ["A"])
    assert (withdrawn.serving, withdrawn.retired, withdrawn.staged) == (("B",), ("A",), None)
    offered = plans.offer(withdrawn, "C")
    assert (offered.serving, offered.default, offered.staged) == (("C", "B"), "B", Staged(generation=3, default="C"))
    ramped = plans.ramp(offered, "C", 10)
    assert (ramped.ramp, ramped.staged) == (Ramp(version="C", percent=10), offered.staged)
    switched = plans.commit(ramped)
    assert (switched.default, switched.generation, switched.ramp) == ("C", 3, None)
    assert switched.staged == Staged(generation=4, default="B")
    back = plans.commit(switched)
    assert (back.default, back.generation, back.epoch) == ("B", 4, 9)


def test_what_an_edge_holds_warm_is_what_the_commit_writes() -> None:
    offered = plans.offer(plans.withdraw(STEADY, ["A"]), "C")
    warm, written = offered.committed(), plans.commit(offered)
    ignored = {"epoch", "staged", "updated_by", "rollout"}
    assert warm.model_dump(exclude=ignored) == written.model_dump(exclude=ignored)


def test_what_comes_back_is_no_longer_retired() -> None:
    again = plans.offer(plans.withdraw(STEADY, ["A"]), "A")
    assert (again.serving, again.retired) == (("A", "B"), ())


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda: plans.withdraw(STEADY, ["B"]), "B is the default and cannot be withdrawn"),
        (lambda: plans.offer(STEADY, "C"), "at most 2 versions"),
        (lambda: plans.offer(STEADY, "B"), "B is the default already"),
        (lambda: plans.stage(STEADY, "C"), "C is not served"),
        (lambda: plans.ramp(STEADY, "B", 5), "a second served version"),
        (lambda: plans.commit(Plan()), "nothing is staged"),
        (lambda: plans.restore(STEADY, ("A",)), "must stay"),
        (lambda: plans.unmix(STEADY, "C"), "C is not served"),
    ],
)
def test_what_would_break_a_promise_is_refused(operation: Callable[[], Plan], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        operation()
