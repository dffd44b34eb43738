"""The table of transitions: complete, and without a way round what must always hold."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest

from barrier import actions, machine
from barrier.actions import Action
from barrier.machine import FINAL, TABLE, UNDER_WAY, Illegal, Rule, decide, rule
from barrier.predicates import Edges
from barrier.view import Event, View
from fleet.model import (
    Ack,
    Enabled,
    EnabledBuild,
    HostStatus,
    Plan,
    Ramp,
    Request,
    Rollout,
    RolloutState,
    ServiceConfig,
    Staged,
    Turn,
)

S, E, A = RolloutState, Event, Action
DIGEST = "sha256:" + "0" * 64
PAGE = Path(__file__).parents[2] / "docs" / "rollout.md"


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_event_in_every_state_is_a_rule_or_an_error(state: S, event: Event) -> None:
    if (state, event) in TABLE:
        assert isinstance(rule(state, event), Rule)
    else:
        with pytest.raises(Illegal, match=f"a rollout that is {state} cannot {event}"):
            rule(state, event)


def test_what_is_over_stays_over() -> None:
    for (state, event), found in TABLE.items():
        if state in FINAL:
            assert (event, found.to, found.action) == (E.REFUSED, state, A.SHRUG)


def test_the_default_moves_in_these_places_only() -> None:
    moves = {(s, e) for (s, e), found in TABLE.items() if found.action in (A.SWITCH, A.GO_BACK)}
    assert moves == {(S.OFFERING, E.READY), (S.RAMPING, E.READY), (S.SWITCHED, E.ROLLBACK)}


def test_hosts_are_told_to_remove_something_only_behind_a_barrier() -> None:
    tells = {(s, e) for (s, e), found in TABLE.items() if found.action in (A.ENABLE, A.ENABLE_FIRST, A.UNDO_ENABLE)}
    # FIRST: nothing is served. ENABLED: the view says so only once every edge has drained.
    assert tells == {(S.WITHDRAWING, E.DRAINED), (S.QUEUED, E.FIRST), (S.ABORTING, E.ENABLED)}


def test_an_operator_can_always_get_out() -> None:
    for state in (*UNDER_WAY, S.PAUSED):
        assert TABLE[state, E.ABORT].to is S.ABORTING
        assert TABLE[state, E.ROLLBACK].to is S.ABORTING
    for state in UNDER_WAY:
        assert TABLE[state, E.PAUSE].to is S.PAUSED


def test_from_everywhere_the_end_can_be_reached() -> None:
    after: dict[S, set[S]] = {s: set() for s in S}
    for (state, _), found in TABLE.items():
        after[state] |= set(UNDER_WAY) if found.to is None else {found.to}
    for start in S:
        seen, todo = {start}, [start]
        while todo:
            for state in after[todo.pop()] - seen:
                seen.add(state)
                todo.append(state)
        assert seen & (FINAL | {S.SWITCHED})


def test_only_a_transition_that_finishes_ends_in_a_final_state() -> None:
    for found in TABLE.values():
        if found.to in FINAL and found.action is not A.SHRUG:
            assert found.action is A.FINISH


def test_every_action_is_used_and_can_be_performed() -> None:
    assert {found.action for found in TABLE.values()} == set(Action) == set(actions._ACTIONS)


def view(state: S, *, plan: Plan, request: str | None = None, done: bool = False, **fields: object) -> View:
    """Of a rollout of C with A as previous; one edge that has done all it should."""
    rollout = Rollout(
        number=7,
        service="shop",
        build="C",
        digest=DIGEST,
        by="ann",
        state=state,
        previous="A",
        done=done,
        request=Request(verb=request, by="bob") if request else None,  # type: ignore[arg-type]
    )
    ack = Ack(incarnation="1", applied=plan.epoch, staged=plan.epoch, drained=plan.epoch, healthy={"C": 1, "A": 1})
    given: dict[str, object] = {
        "rollout": rollout,
        "config": ServiceConfig(),
        "plan": plan,
        "enabled": Enabled(),
        "edges": Edges(("e",), frozenset("e"), {"e": ack}),
        "members": {"A": 1, "C": 1},
    }
    return View(**(given | fields))  # type: ignore[arg-type]


OFFERED = Plan(epoch=5, generation=1, default="A", serving=("C", "A"), staged=Staged(generation=2, default="C"))


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        (None, ("pause", "resume", "abort", "rollback")),
        ("resume", ("pause", "resume", "abort", "rollback")),
        ("pause", ("pause", "abort", "rollback")),
        ("abort", ("abort", "rollback")),
        ("rollback", ("abort", "rollback")),
    ],
)
def test_nobodys_abort_is_lost_to_a_later_word(asked: str | None, by: tuple[str, ...]) -> None:
    request = Request(verb=asked, by="bob") if asked else None  # type: ignore[arg-type]
    assert tuple(v for v in ("pause", "resume", "abort", "rollback") if machine.gives_way(request, v)) == by


def test_the_switch_stages_the_way_back() -> None:
    step = decide(view(S.OFFERING, plan=OFFERED), at=0, by="b").step
    assert step is not None
    assert step.plan is not None
    assert (step.plan.default, step.plan.generation, step.plan.epoch) == ("C", 2, 6)
    assert step.plan.staged == Staged(generation=3, default="A")
    assert (step.plan.updated_by, step.plan.rollout) == ("b", 7)
    assert step.rollout.history[-1].text == "every edge is ready: C is the default"


def test_no_switch_while_nobody_has_registered_it_not_even_without_edges() -> None:
    outcome = decide(view(S.OFFERING, plan=OFFERED, members={}, edges=Edges()), at=0, by="b")
    assert outcome.step is None
    assert [str(m) for m in outcome.missing] == ["C: no host has registered it"]


def test_a_word_of_the_operator_comes_before_the_switch() -> None:
    step = decide(view(S.OFFERING, plan=OFFERED, request="abort"), at=0, by="b").step
    assert step is not None
    assert (step.event, step.rollout.state, step.plan, step.rollout.request) == (E.ABORT, S.ABORTING, None, None)
    assert step.rollout.history[-1].text == "abort (asked by bob)"


def test_hosts_are_told_to_keep_what_an_abort_would_put_back() -> None:
    before = tuple(EnabledBuild(build=b, digest=DIGEST) for b in ("A", "Z"))
    withdrawn = Plan(epoch=5, generation=1, default="A", serving=("A",))
    seen = view(S.WITHDRAWING, plan=withdrawn, enabled=Enabled(serial=3, builds=before))
    seen = replace(seen, rollout=seen.rollout.model_copy(update={"before": before, "withdrawn": ("Z",)}))
    step = decide(seen, at=0, by="b").step
    assert step is not None and step.enabled is not None
    assert ([b.build for b in step.enabled.builds], step.enabled.kept) == (["C", "A"], ("A", "Z"))
    failed = HostStatus(name="h", error="no", failed_serial=4)
    paused = replace(seen, rollout=step.rollout, enabled=step.enabled, hosts={"h": failed}, turns={"h": Turn(serial=4)})
    paused = replace(
        paused,
        rollout=step.rollout.model_copy(
            update={
                "state": S.PAUSED,
                "failures": {"h": "no"},
                "resume_to": S.INSTALLING,
                "request": Request(verb="resume", by="bob"),
            }
        ),
    )
    again = decide(paused, at=0, by="b").step
    assert again is not None and again.enabled is not None
    assert (again.enabled.serial, again.enabled.kept) == (5, ("A", "Z")), "when they try again, too"


def test_an_abort_of_a_ramp_brings_only_new_pages_back() -> None:
    ramping = OFFERED.model_copy(update={"ramp": Ramp(version="C", percent=10)})
    aborting = view(S.ABORTING, plan=ramping)
    step = decide(aborting, at=0, by="b").step
    assert step is not None and step.plan is not None
    assert (step.plan.ramp, step.plan.serving, step.plan.default, step.plan.epoch) == (None, ("C", "A"), "A", 6)
    ended = replace(aborting, plan=step.plan, rollout=step.rollout)
    late = decide(ended, at=0, by="b")
    assert (late.step, [str(m) for m in late.missing]) == (None, ["e: epoch 5 of 6"])
    last = decide(replace(view(S.ABORTING, plan=step.plan), rollout=step.rollout), at=0, by="b").step
    assert last is not None
    assert (last.plan, last.enabled, last.rollout.state, last.rollout.done) == (None, None, S.ABORTED, True)
    assert last.rollout.history[-1].text == "aborted: C stays for pages that came from it, until the next release"


@pytest.mark.parametrize("state", [s for s in S if s not in (S.QUEUED, *UNDER_WAY, S.PAUSED)])
def test_what_cannot_be_asked_now_is_refused_and_forgotten(state: S) -> None:
    step = decide(view(state, plan=OFFERED, request="pause"), at=0, by="b").step
    assert step is not None
    assert (step.event, step.rollout.state, step.rollout.request, step.plan) == (E.REFUSED, state, None, None)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan(epoch=9, generation=3, default="D", serving=("D", "C")), "the default is D, not C"),
        (Plan(epoch=9, generation=3, default="C", serving=("D", "C")), "A is no longer served"),
    ],
)
def test_a_rollback_to_what_is_gone_is_refused_and_the_rollout_stays_done(plan: Plan, why: str) -> None:
    step = decide(view(S.SWITCHED, plan=plan, request="rollback", done=True), at=0, by="b").step
    assert step is not None
    assert (step.event, step.rollout.state, step.rollout.done, step.plan) == (E.REFUSED, S.SWITCHED, True, None)
    assert why in step.rollout.history[-1].text


def test_a_rollback_to_what_is_served_but_not_staged_works_too() -> None:
    plan = Plan(epoch=9, generation=3, default="C", serving=("C", "A"))
    step = decide(view(S.SWITCHED, plan=plan, request="rollback", done=True), at=0, by="b").step
    assert step is not None
    assert step.plan is not None
    assert (step.plan.default, step.plan.epoch, step.plan.generation) == ("A", 10, 4)


def test_what_somebody_else_did_to_the_plan_is_not_undone() -> None:
    plan = Plan(epoch=9, generation=3, default="C", serving=("C", "A"))
    step = decide(view(S.INSTALLING, plan=plan), at=0, by="b").step
    assert step is not None
    assert (step.event, step.rollout.state, step.rollout.done, step.plan) == (E.ADRIFT, S.FAILED, True, None)


def test_a_host_that_vanished_in_its_turn_fails_after_a_while() -> None:
    plan = Plan(epoch=9, generation=3, default="A", serving=("A",))
    host = HostStatus(name="h2", serial=3)
    seen = {"plan": plan, "enabled": Enabled(serial=3), "hosts": {"h2": host}, "turns": {"h1": Turn(serial=3)}}
    seen |= {"missed": frozenset({"h1"})}
    outcome = decide(view(S.INSTALLING, **seen), at=0, by="b")  # type: ignore[arg-type]
    assert [str(m) for m in outcome.missing] == ["h1: went away during its turn"]
    step = decide(view(S.INSTALLING, lost=frozenset({"h1"}), **seen), at=0, by="b").step  # type: ignore[arg-type]
    assert step is not None
    assert (step.rollout.state, step.rollout.failures) == (S.PAUSED, {"h1": "went away during its turn"})


def test_a_host_that_is_down_after_its_turn_fails_after_a_while() -> None:
    """With its own words, where it has any."""
    plan = Plan(epoch=9, generation=3, default="A", serving=("A",))
    hosts = {"h1": HostStatus(name="h1", serial=3), "h2": HostStatus(name="h2", serial=3, error="killed: no memory")}
    seen = {"plan": plan, "enabled": Enabled(serial=3), "hosts": hosts, "missed": frozenset({"h1", "h2"})}
    seen |= {"turns": dict.fromkeys(hosts, Turn(serial=3))}
    outcome = decide(view(S.INSTALLING, **seen), at=0, by="b")  # type: ignore[arg-type]
    said = {"h1": "does not serve any more what it had started", "h2": "killed: no memory"}
    assert {m.who: m.why for m in outcome.missing} == said
    step = decide(view(S.INSTALLING, lost=frozenset(hosts), **seen), at=0, by="b").step  # type: ignore[arg-type]
    assert step is not None
    assert (step.rollout.state, step.rollout.failures) == (S.PAUSED, said)


def test_docs_show_the_table() -> None:
    """Rewritten when PINRAIL_WRITE_DOCS is set (``make docs``)."""
    page = machine.page()
    if os.environ.get("PINRAIL_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "docs/rollout.md is not what the table says: make docs"
