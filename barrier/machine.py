"""The rollout as a table of transitions: (state, event) -> (state, action). Pure.

There is no path beside the table; an event that it does not hold is an error. What happens is decided in ``view``,
what a transition changes in ``actions``; here is only what follows what. ``diagram`` draws the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from barrier.actions import Action, perform
from barrier.plans import PlanError
from barrier.predicates import Missing
from barrier.view import Event, Seen, View, observe
from fleet.model import Enabled, Plan, Request, Rollout, RolloutEvent
from fleet.model import RolloutState as S

A, E = Action, Event


class Illegal(Exception):
    """The table holds no such transition."""


class Rule(NamedTuple):
    """Where an event leads and what it does. ``to`` None: back to where the pause came from."""

    to: S | None
    action: Action
    #: What the history says; {build}, {previous}, {gone}, {note}, {percent} are filled in.
    says: str


#: Final states: nothing follows and the lock is free. A finished ``switched`` can still be rolled back.
FINAL = frozenset({S.ABORTED, S.ROLLED_BACK, S.FAILED})
#: Before the switch: may be paused, and an abort or a rollback undoes what was begun.
UNDER_WAY = (S.WITHDRAWING, S.INSTALLING, S.OFFERING, S.RAMPING)

_WITHDRAW = Rule(S.ABORTING, A.NOTHING, "abort{note}")
_PAUSE = Rule(S.PAUSED, A.NOTHING, "paused{note}")
_CANCEL = Rule(S.ABORTED, A.FINISH, "aborted before it began{note}")
_ADRIFT = Rule(S.FAILED, A.FINISH, "given up, nothing touched{note}")

TABLE: dict[tuple[S, Event], Rule] = {
    (S.QUEUED, E.SAME): Rule(S.SWITCHED, A.ADOPT, "{build} is the default already: nothing to do"),
    (S.QUEUED, E.SERVED): Rule(S.OFFERING, A.STAGE, "{build} is served already: stage it as the default"),
    (S.QUEUED, E.FIRST): Rule(S.INSTALLING, A.ENABLE_FIRST, "nothing is served yet: install {build}"),
    (S.QUEUED, E.BEGIN): Rule(S.WITHDRAWING, A.WITHDRAW, "{gone}; wait until every edge has drained"),
    (S.QUEUED, E.ABORT): _CANCEL,
    (S.QUEUED, E.ROLLBACK): _CANCEL,
    (S.WITHDRAWING, E.DRAINED): Rule(S.INSTALLING, A.ENABLE, "every edge has drained: install {build}"),
    (S.INSTALLING, E.INSTALLED): Rule(S.OFFERING, A.OFFER, "every host runs {build}: offer and stage it"),
    (S.INSTALLING, E.FAILURES): Rule(S.PAUSED, A.NOTE_FAILURES, "paused, hosts failed{note}"),
    (S.OFFERING, E.READY): Rule(S.SWITCHED, A.SWITCH, "every edge is ready: {build} is the default"),
    (S.OFFERING, E.STEP): Rule(S.RAMPING, A.RAMP, "every edge is ready: {percent} % of new documents get {build}"),
    (S.RAMPING, E.STEP): Rule(S.RAMPING, A.RAMP, "{percent} % of new documents get {build}"),
    (S.RAMPING, E.READY): Rule(S.SWITCHED, A.SWITCH, "the ramp is done: {build} is the default"),
    (S.SWITCHED, E.SETTLED): Rule(S.SWITCHED, A.FINISH, "every edge has switched to {build}"),
    (S.SWITCHED, E.ROLLBACK): Rule(S.ROLLING_BACK, A.GO_BACK, "rollback: {previous} is the default again{note}"),
    (S.ROLLING_BACK, E.SETTLED): Rule(S.ROLLED_BACK, A.FINISH, "every edge is back on {previous}"),
    (S.PAUSED, E.RESUME): Rule(None, A.RETRY, "resumed{note}"),
    (S.PAUSED, E.ABORT): _WITHDRAW,
    (S.PAUSED, E.ROLLBACK): _WITHDRAW,
    (S.ABORTING, E.RAMPED): Rule(S.ABORTING, A.UNDO_RAMP, "new pages no longer come from {build}"),
    (S.ABORTING, E.OFFERED): Rule(S.ABORTING, A.UNDO_OFFER, "{build} is no longer offered"),
    (S.ABORTING, E.ENABLED): Rule(S.ABORTING, A.UNDO_ENABLE, "put back on the hosts what they ran before"),
    (S.ABORTING, E.WITHDRAWN): Rule(S.ABORTING, A.UNDO_WITHDRAW, "offer again what was served before"),
    (S.ABORTING, E.FAILURES): Rule(
        S.ABORTED, A.FINISH, "aborted; {previous} is untouched, the rest not restored{note}"
    ),
    (S.ABORTING, E.SETTLED): Rule(S.ABORTED, A.FINISH, "aborted{note}"),
}
for _state in UNDER_WAY:
    TABLE[_state, E.PAUSE] = _PAUSE
    TABLE[_state, E.ABORT] = _WITHDRAW
    TABLE[_state, E.ROLLBACK] = _WITHDRAW
for _state in (*UNDER_WAY, S.SWITCHED, S.ROLLING_BACK):
    TABLE[_state, E.ADRIFT] = _ADRIFT
for _state in S:
    TABLE[_state, E.REFUSED] = Rule(_state, A.SHRUG, "refused{note}")


def rule(state: S, event: Event) -> Rule:
    try:
        return TABLE[state, event]
    except KeyError:
        raise Illegal(f"a rollout that is {state} cannot {event}") from None


@dataclass(frozen=True)
class Step:
    """One transition, ready to be written in one transaction."""

    event: Event
    rollout: Rollout
    plan: Plan | None = None
    enabled: Enabled | None = None


@dataclass(frozen=True)
class Outcome:
    """What there is to do now: a step, or waiting for those who are missing."""

    step: Step | None = None
    missing: tuple[Missing, ...] = ()


def _says(rule: Rule, view: View, seen: Seen, plan: Plan) -> str:
    text = rule.says.format(
        build=view.rollout.build,
        previous=view.rollout.previous or "nothing",
        gone=f"withdraw {', '.join(view.unwanted)}" if view.unwanted else "nothing to withdraw",
        percent=plan.ramp.percent if plan.ramp else 0,
        note=f": {seen.note}" if seen.note else "",
    )
    request = view.rollout.request
    if request and request.verb == "resume" and view.rollout.state is S.RAMPING and seen.event in (E.STEP, E.READY):
        why = f": {request.reason}" if request.reason else ""
        return f"{text} (asked by {request.by}{why})"
    return f"{text} (asked by {request.by})" if request and seen.event == request.verb else text


def decide(view: View, *, at: float, by: str, seconds: float | None = None) -> Outcome:
    """The next step of ``view``'s rollout. ``at`` and ``seconds`` are for the history only.

    Raises Illegal when something happened that the table does not hold.
    """
    seen = observe(view)
    event, rollout = seen.event, view.rollout
    if event is None:
        return Outcome(missing=seen.missing)
    if rollout.request is not None and (rollout.state, event) not in TABLE:
        seen = Seen(Event.REFUSED, note=f"a rollout that is {rollout.state} cannot {event}")
        event = Event.REFUSED
    found = rule(rollout.state, event)
    try:
        effect = perform(found.action, view)
    except PlanError as e:
        seen, event, found = Seen(Event.ADRIFT, note=str(e)), Event.ADRIFT, _ADRIFT
        effect = perform(found.action, view)
    to = found.to or rollout.resume_to
    if to is None:
        raise Illegal("a paused rollout does not know what to go on with")
    written = view.plan
    if effect.plan is not None:
        written = effect.plan.model_copy(update={"updated_by": by, "rollout": rollout.number})
    happened = RolloutEvent(
        at=at, state=to, text=_says(found, view, seen, written), epoch=written.epoch, seconds=seconds
    )
    changes = {
        "state": to,
        "resume_to": rollout.state if to is S.PAUSED else None,
        "done": rollout.done and event is Event.REFUSED,
        "stalled": (),
        "request": None,  # answered: by a transition of its own, or, a ramp's ``resume``, by the step it allowed
        "history": (*rollout.history, happened),
    }
    after = rollout.model_copy(update=changes | effect.rollout)
    return Outcome(Step(event, after, written if effect.plan else None, effect.enabled))


def allowed(state: S, verb: str) -> bool:
    """Whether an operator may ask this of a rollout in that state."""
    return (state, Event(verb)) in TABLE or (state is S.RAMPING and verb == "resume")


def gives_way(asked: Request | None, verb: str) -> bool:
    """Whether ``verb`` may take the place of a request that the leader has not answered yet.

    Nobody's abort is lost to a later ``resume``. But a ``resume`` in a ramp stays open until every edge is ready, and
    whoever asked it may think better of it.
    """
    return asked is None or asked.verb in ("resume", verb) or verb in ("abort", "rollback")


def diagram() -> str:
    """The table as a mermaid state diagram. What can happen almost everywhere is said once, in a note."""
    often = (E.PAUSE, E.ABORT, E.ROLLBACK, E.ADRIFT, E.REFUSED)
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for (state, event), found in TABLE.items():
        if (event in often and state in UNDER_WAY) or event is E.REFUSED:
            continue
        to = found.to or "under_way"
        what = f"{event}: {found.action}" if found.action is not A.NOTHING else str(event)
        lines.append(f"    {state} --> {to}: {what}")
    lines.append("    state under_way {")
    lines.extend(f"        {state}" for state in UNDER_WAY)
    lines.append("    }")
    for event in (E.PAUSE, E.ABORT, E.ROLLBACK, E.ADRIFT):
        found = TABLE[S.OFFERING, event]
        lines.append(f"    under_way --> {found.to}: {event}")
    lines.extend(f"    {state} --> [*]" for state in (S.SWITCHED, *sorted(FINAL)))
    return "\n".join(lines) + "\n"


def page() -> str:
    """The diagram and the table for people: ``docs/rollout.md``."""
    rows = ["| state | event | becomes | does |", "|---|---|---|---|"]
    for (state, event), found in TABLE.items():
        if event is not E.REFUSED:
            to = found.to or "what it was"
            rows.append(f"| {state} | {event} | {to} | {'' if found.action is A.NOTHING else found.action} |")
    return _PAGE.format(diagram=diagram(), table="\n".join(rows))


_PAGE = """\
# The states of a rollout

Written by `make docs` from the table in `barrier/machine.py`; a test compares the two. `done` is a mark on top of the
state: a rollout that is `switched` is done, and its service free for the next one, when every edge has applied it. A
stall is no state either, but a reason on top of one. `under_way` stands for the four states in its box.

```mermaid
{diagram}```

{table}

A request that cannot be granted is refused, in any state, and changes nothing.
"""
