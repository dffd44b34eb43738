"""What a transition does to the plan, to ``enabled`` and to the rollout. Pure: a view in, the changes out.

Each action is one step of the protocol; all its changes are written in one transaction by the controller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from barrier import plans
from barrier.plans import PlanError
from barrier.view import View, next_percent
from fleet.model import Enabled, EnabledBuild, Plan


class Action(StrEnum):
    """What a transition does, beside changing the state."""

    NOTHING = "nothing"
    WITHDRAW = "withdraw what is neither the default nor new"
    ADOPT = "free the lock, a rollback goes the way that is staged"
    ENABLE = "tell the hosts to run the new version"
    ENABLE_FIRST = "tell the hosts to run the first version"
    OFFER = "offer the new version and stage it"
    STAGE = "stage the version that is served already"
    RAMP = "move the ramp to its next step"
    SWITCH = "commit the staged plan"
    GO_BACK = "commit the way back"
    UNDO_RAMP = "end the ramp"
    UNDO_OFFER = "withdraw the new version"
    UNDO_ENABLE = "tell the hosts to run what they ran before"
    UNDO_WITHDRAW = "offer again what was served before"
    NOTE_FAILURES = "note the hosts' errors"
    RETRY = "let failed hosts try again"
    SHRUG = "refuse the request"
    FINISH = "free the lock"


@dataclass(frozen=True)
class Effect:
    """Changes to be written together; None where something stays as it is."""

    plan: Plan | None = None
    enabled: Enabled | None = None
    rollout: dict[str, Any] = field(default_factory=dict)


def _enabled(view: View, builds: tuple[EnabledBuild, ...]) -> Enabled:
    kept = tuple(b.build for b in view.rollout.before)
    return Enabled(serial=view.enabled.serial + 1, builds=builds, kept=kept, rollout=view.rollout.number)


def _remember(view: View) -> dict[str, Any]:
    """What an abort would put back. Taken once, when the rollout leaves the queue."""
    plan = view.plan
    before = view.enabled.builds
    if view.mixed:  # one slot: nothing but the default was really running
        before = tuple(b for b in before if b.build == plan.default)
    return {
        "previous": plan.default,
        "served": plan.serving,
        "before": before,
        "withdrawn": view.unwanted,
    }


def _withdraw(view: View) -> Effect:
    plan = view.plan
    if view.mixed:
        return Effect(plan=plans.mix(plan, view.rollout.build), rollout=_remember(view))
    if not view.unwanted and plan.mode == "pinned" and plan.ramp is None:
        return Effect(rollout=_remember(view))  # nothing to withdraw; the barrier is asked all the same
    after = plans.withdraw(plan.model_copy(update={"ramp": None}), view.unwanted)
    return Effect(plan=after, rollout=_remember(view))


def _enable(view: View) -> Effect:
    new = EnabledBuild(build=view.rollout.build, digest=view.rollout.digest)
    default = view.plan.default
    kept = tuple(b for b in view.enabled.builds if b.build == default)
    if default is not None and not kept:
        raise PlanError(f"hosts are not told to run {default}, which is the default: its digest is not known")
    return Effect(enabled=_enabled(view, (new,) if view.mixed else (new, *kept)))


def _enable_first(view: View) -> Effect:
    plan = plans.mix(view.plan, view.rollout.build) if view.mixed else None
    return Effect(plan=plan, enabled=_enable(view).enabled, rollout=_remember(view))


def _adopt(view: View) -> Effect:
    staged = view.plan.staged
    return Effect(rollout=_remember(view) | {"done": True, "previous": staged.default if staged else None})


def _offer(view: View) -> Effect:
    return Effect() if view.mixed else Effect(plan=plans.offer(view.plan, view.rollout.build))


def _stage(view: View) -> Effect:
    staged = view.plan.staged
    ready = staged is not None and staged.default == view.rollout.build and view.plan.ramp is None
    plan = None if ready else plans.stage(view.plan.model_copy(update={"ramp": None}), view.rollout.build)
    return Effect(plan=plan, rollout=_remember(view))


def _ramp(view: View) -> Effect:
    return Effect(plan=plans.ramp(view.plan, view.rollout.build, next_percent(view)))


def _switch(view: View) -> Effect:
    build = view.rollout.build
    return Effect(plan=plans.unmix(view.plan, build) if view.mixed else plans.commit(view.plan))


def _go_back(view: View) -> Effect:
    plan, previous = view.plan, view.rollout.previous
    assert previous is not None, "the machine refuses a rollback to nothing"  # noqa: S101
    if plan.staged is None or plan.staged.default != previous:
        plan = plans.stage(plan, previous).model_copy(update={"epoch": plan.epoch})  # staged and committed at once
    return Effect(plan=plans.commit(plan))


def _undo_ramp(view: View) -> Effect:
    """Only new pages come back: those that came by the ramp stay where they are, as open pages do in either direction.

    So what is served and runs now is what this abort ends with.
    """
    plan = plans.ramp(view.plan, view.rollout.build, None)
    return Effect(plan=plan, rollout={"served": plan.serving, "before": view.enabled.builds})


def _undo_offer(view: View) -> Effect:
    plan, rollout = view.plan, view.rollout
    if view.mixed and rollout.previous is not None:
        return Effect(plan=plans.unmix(plan, rollout.previous))
    return Effect(plan=plans.withdraw(plan, (rollout.build,)))


def _retry(view: View) -> Effect:
    if not view.rollout.failures:
        return Effect()
    return Effect(enabled=_enabled(view, view.enabled.builds), rollout={"failures": {}})


_ACTIONS: dict[Action, Callable[[View], Effect]] = {
    Action.NOTHING: lambda _: Effect(),
    Action.WITHDRAW: _withdraw,
    Action.ADOPT: _adopt,
    Action.ENABLE: _enable,
    Action.ENABLE_FIRST: _enable_first,
    Action.OFFER: _offer,
    Action.STAGE: _stage,
    Action.RAMP: _ramp,
    Action.SWITCH: _switch,
    Action.GO_BACK: _go_back,
    Action.UNDO_RAMP: _undo_ramp,
    Action.UNDO_OFFER: _undo_offer,
    Action.UNDO_ENABLE: lambda v: Effect(enabled=_enabled(v, v.rollout.before)),
    Action.UNDO_WITHDRAW: lambda v: Effect(plan=plans.restore(v.plan, v.rollout.served)),
    Action.NOTE_FAILURES: lambda v: Effect(rollout={"failures": v.failures()}),
    Action.RETRY: _retry,
    Action.SHRUG: lambda _: Effect(),
    Action.FINISH: lambda _: Effect(rollout={"done": True}),
}


def perform(action: Action, view: View) -> Effect:
    """The changes of ``action``. Raises PlanError where the plan does not allow it."""
    return _ACTIONS[action](view)
