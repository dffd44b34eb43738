"""A caller's verdict on a ramp's present step: pass goes on, fail takes the ramp back, undecided is only written down.

The caller compares the versions; nothing here does. The leader does what a verdict asks for as it does an operator's
word.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

from barrier.snapshot import parse
from barrier.store import audit, rollouts
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.model import Plan, Rollout, RolloutEvent, RolloutState
from fleet.zk import Check, Conflict, Set, ZooKeeperTrouble

Verdict = Literal["pass", "fail", "undecided"]
_VERBS: dict[Verdict, Literal["resume", "abort"]] = {"pass": "resume", "fail": "abort"}


def give(store: Store, service: str, number: int, verdict: Verdict, by: By, *, percent: int | None = None) -> Rollout:
    """Refused where the rollout is not ramping, or not at ``percent``: a verdict on one step never passes the next."""
    said = dataclasses.replace(by, reason=f"verdict {verdict}" + (f": {by.reason}" if by.reason else ""))
    for _ in range(TRIES):
        rollout, version, plan, plan_version = _ramping(store, service, number, percent)
        at_this_step = Check(paths.plan(service), plan_version)
        try:
            if verdict in _VERBS:
                return rollouts.ask_once(store, rollout, version, _VERBS[verdict], said, plan, [at_this_step])
            event = RolloutEvent(
                at=time.time(), state=rollout.state, text=f"{said.reason} (said by {by.name})", epoch=plan.epoch
            )
            noted = rollout.model_copy(update={"history": (*rollout.history, event)})
            audit.commit(
                store.zk,
                [Set(paths.rollout(service, number), noted.encode(), version), at_this_step],
                said,
                "verdict",
                f"is undecided about rollout {number} of {service}",
                service=service,
                rollout=number,
                version=rollout.build,
                epoch_before=plan.epoch,
            )
            return noted
        except Conflict:
            continue
    raise ZooKeeperTrouble(f"rollout {number} of {service} keeps changing under this request: try again")


def _ramping(store: Store, service: str, number: int, percent: int | None) -> tuple[Rollout, int, Plan, int]:
    path = paths.rollout(service, number)
    node, stored = store.zk.get(path, watch=False), store.zk.get(paths.plan(service), watch=False)
    if node is None or stored is None:
        raise Refused("unknown", f"{service} has no rollout {number}", rollouts=store.numbers(service)[-20:])
    rollout, plan = parse(Rollout, node, path), parse(Plan, stored, paths.plan(service))
    if rollout.state is not RolloutState.RAMPING or plan.ramp is None:
        over = " and takes no verdict: roll it back instead" if rollout.state is RolloutState.SWITCHED else ""
        raise Refused(
            "conflict", f"rollout {number} is {rollout.state}{over or ': there is no step of a ramp to judge'}"
        )
    if rollout.request is not None and rollout.request.verb != "resume":
        raise Refused("conflict", f"rollout {number} is asked to {rollout.request.verb} already")
    if percent is not None and plan.ramp.percent != percent:
        raise Refused(
            "conflict",
            f"rollout {number} is at {plan.ramp.percent} %: a verdict on {percent} % is on another step",
        )
    return rollout, node.version, plan, stored.version
