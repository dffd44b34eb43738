"""What the machine looks at: one service's rollout and everything around it at one instant, and what that amounts to.

``observe`` names the one thing that has happened (an event of the machine's table), or who is being waited for. Pure:
the controller fills a ``View`` from its snapshot; clocks have been boiled down to two facts, ``held`` and ``lost``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from barrier import predicates, turns
from barrier.predicates import Edges, Missing
from fleet.model import Enabled, HostStatus, Plan, Rollout, RolloutState, ServiceConfig, Turn


class Event(StrEnum):
    """What can happen to a rollout."""

    # it begins
    SAME = "same"  # the build is the default already
    SERVED = "served"  # the build is served beside the default
    FIRST = "first"  # nothing is served yet
    BEGIN = "begin"
    # the fleet has got there
    DRAINED = "drained"
    INSTALLED = "installed"
    READY = "ready"  # the default may move
    STEP = "step"  # the ramp may take its next step
    SETTLED = "settled"  # every edge has applied it
    # an abort finds something to undo
    RAMPED = "ramped"  # new documents still get the new version
    OFFERED = "offered"  # the new version is still served
    ENABLED = "enabled"  # hosts are still told to run the new version
    WITHDRAWN = "withdrawn"  # what was served before is back on the hosts but not served
    # it went wrong
    FAILURES = "failures"  # too many hosts failed in their turn
    ADRIFT = "adrift"  # the plan is not what this rollout left it as
    # an operator says so
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"
    REFUSED = "refused"  # an operator asked for what cannot be done now


@dataclass(frozen=True)
class View:
    """Everything that bears on one rollout, at one instant."""

    rollout: Rollout
    config: ServiceConfig
    plan: Plan
    enabled: Enabled
    edges: Edges = field(default_factory=Edges)
    hosts: Mapping[str, HostStatus] = field(default_factory=dict)
    turns: Mapping[str, Turn] = field(default_factory=dict)
    #: Registered members per version.
    members: Mapping[str, int] = field(default_factory=dict)
    #: This step of the ramp has been held for long enough.
    held: bool = False
    #: Hosts that hold a turn and are away, or have done it and are down since; of those, who has been so for a while.
    missed: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()

    @property
    def mixed(self) -> bool:
        return self.rollout.strategy == "inplace"

    @property
    def unwanted(self) -> tuple[str, ...]:
        """What is served and is neither the default nor what this rollout brings."""
        return tuple(v for v in self.plan.serving if v not in (self.plan.default, self.rollout.build))

    def failures(self) -> dict[str, str]:
        """Hosts that failed in their turn, with their own words; a host that vanished in it is one."""
        found = {n: h.error or "" for n, h in self.hosts.items() if turns.failed(h, self.enabled.serial)}
        return found | {m.who: m.why for m in self.gone() if m.who in self.lost}

    def gone(self) -> tuple[Missing, ...]:
        """Hosts that vanished in their turn, or are down after it was done."""
        names = sorted(n for n in self.missed if self.turns[n].serial >= self.enabled.serial)
        return tuple(Missing(n, turns.missed(self.hosts.get(n))) for n in names)


@dataclass(frozen=True)
class Seen:
    """What ``observe`` found: an event, or who is waited for; ``note`` is said with the event."""

    event: Event | None = None
    missing: tuple[Missing, ...] = ()
    note: str = ""


def waiting_hosts(view: View) -> tuple[Missing, ...]:
    """Hosts that have not reached the serial of ``enabled``, those that failed it included."""
    serial = view.enabled.serial
    missing = []
    for name, host in sorted(view.hosts.items()):
        if host.serial >= serial:
            continue
        turn = view.turns.get(name)
        if host.error and host.failed_serial == serial:
            missing.append(Missing(name, f"failed: {host.error}"))
        elif host.error:
            missing.append(Missing(name, host.error))
        elif turn is None or turn.serial < serial:
            missing.append(Missing(name, "waits for its turn"))
        else:
            missing.append(Missing(name, host.step or "has its turn and has not begun"))
    return (*missing, *view.gone())


def _on_hosts(view: View, done: Event) -> Seen:
    failures = view.failures()
    if len(failures) > view.config.waves.max_failures:
        return Seen(Event.FAILURES, note="; ".join(f"{n}: {why}" for n, why in sorted(failures.items())))
    missing = waiting_hosts(view)
    if not view.hosts:
        missing = (*missing, Missing("hosts", "no host of this service is known"))
    elif not any(h.serial >= view.enabled.serial for h in view.hosts.values()):
        missing = missing or (Missing("hosts", "no host has installed it"),)
    elif predicates.names(missing) <= failures.keys():
        return Seen(done)  # those that failed are tolerated
    return Seen(missing=missing)


def _begun(view: View) -> Seen:
    plan, build = view.plan, view.rollout.build
    if build == plan.default:
        return Seen(Event.SAME)
    if not plan.serving:
        return Seen(Event.FIRST)
    # What is offered by hand need not run anywhere.
    served = build in plan.serving and view.members.get(build, 0) > 0
    if served and not view.mixed and plan.mode == "pinned" and not view.unwanted:
        return Seen(Event.SERVED)
    return Seen(Event.BEGIN)


def _adrift(view: View) -> str | None:
    """Why the plan is not what this rollout left it as; only someone beside the controller can have done that."""
    plan, rollout = view.plan, view.rollout
    S = RolloutState
    expected = {S.SWITCHED: rollout.build}.get(rollout.state, rollout.previous)
    if rollout.state in (S.QUEUED, S.ABORTING) or rollout.done:
        return None
    if plan.default != expected:
        return f"the default is {plan.default or 'nothing'} where it should be {expected or 'nothing'}"
    if rollout.state in (S.OFFERING, S.RAMPING) and rollout.build not in plan.serving:
        return f"{rollout.build} is no longer in the plan"
    return None


def _ready(view: View) -> tuple[Missing, ...]:
    build = view.rollout.build
    return predicates.ready(view.edges, view.plan.epoch, build, view.members.get(build, 0), view.config.health.floor)


def next_percent(view: View) -> int | None:
    """The ramp's next step, None when what comes next is the switch. A first deploy has nobody to ramp from."""
    now = view.plan.ramp.percent if view.plan.ramp else 0
    if view.plan.default is None or view.mixed:
        return None
    return next((p for p in view.rollout.ramp if now < p < 100), None)


def _offered(view: View, *, go: bool) -> Seen:
    missing = _ready(view)
    if missing:
        return Seen(missing=missing)
    if not go:
        percent = view.plan.ramp.percent if view.plan.ramp else 0
        waits = {"hand": " until somebody says so", "verdict": " until a verdict on it comes"}
        why = f"held at {percent} %{waits.get(str(view.rollout.hold), '')}; `resume` goes on at once"
        return Seen(missing=(Missing("ramp", why),))
    return Seen(Event.READY if next_percent(view) is None else Event.STEP)


def _aborting(view: View) -> Seen:
    """What is left to undo, in the order in which it must be undone."""
    plan, enabled, rollout, edges = view.plan, view.enabled, view.rollout, view.edges
    in_place = view.mixed and rollout.previous is not None
    if not in_place and plan.ramp is not None:
        return Seen(Event.RAMPED)  # from here on the new version is one of ``rollout.served``
    if not in_place and rollout.build in plan.serving and rollout.build not in rollout.served:
        return Seen(Event.OFFERED)
    if enabled.builds != rollout.before and enabled.rollout == rollout.number:
        missing = () if in_place else predicates.drained(edges, plan.epoch)
        return Seen(missing=missing) if missing else Seen(Event.ENABLED)
    if enabled.rollout == rollout.number and view.hosts:
        on_hosts = _on_hosts(view, Event.SETTLED)
        if on_hosts.event is not Event.SETTLED:
            return on_hosts
    if in_place and rollout.build in plan.serving:
        return Seen(Event.OFFERED)
    if not in_place and set(plan.serving) != set(rollout.served):
        return Seen(Event.WITHDRAWN)
    if missing := predicates.applied(edges, plan.epoch):
        return Seen(missing=missing)
    kept = not in_place and rollout.build in plan.serving
    stays = f"{rollout.build} stays for pages that came from it, until the next release"
    return Seen(Event.SETTLED, note=stays if kept else "everything is as it was")


def _applied(view: View) -> Seen:
    missing = predicates.applied(view.edges, view.plan.epoch)
    return Seen(missing=missing) if missing else Seen(Event.SETTLED)


def _refusal(view: View) -> str | None:
    """Why a rollback cannot be done although its state would allow it."""
    rollout, plan = view.rollout, view.plan
    if rollout.state is not RolloutState.SWITCHED:
        return None
    if plan.default != rollout.build:
        return f"the default is {plan.default or 'nothing'}, not {rollout.build}"
    if rollout.previous is None:
        return f"nothing was served before {rollout.build}"
    if view.mixed or rollout.previous not in plan.serving:
        return f"{rollout.previous} is no longer served: deploy it instead"
    if view.members.get(rollout.previous, 0) < 1:
        return f"no host has {rollout.previous} running: deploy it instead"
    return None


def _requested(view: View) -> Seen | None:
    request = view.rollout.request
    if request is None:
        return None
    if request.verb == "resume" and view.rollout.state is RolloutState.RAMPING:
        return None  # it ends the hold of this step, see ``observe``
    refusal = _refusal(view) if request.verb == "rollback" else None
    return Seen(Event.REFUSED, note=refusal) if refusal else Seen(Event(request.verb), note=request.reason)


def observe(view: View) -> Seen:
    """The one thing that has happened, or who is being waited for. An operator's word comes first."""
    rollout = view.rollout
    if (requested := _requested(view)) is not None:
        return requested
    if rollout.state is not RolloutState.PAUSED and (adrift := _adrift(view)) is not None:
        return Seen(Event.ADRIFT, note=adrift)
    match rollout.state:
        case RolloutState.QUEUED:
            return _begun(view)
        case RolloutState.WITHDRAWING:
            missing = predicates.drained(view.edges, view.plan.epoch)
            return Seen(missing=missing) if missing else Seen(Event.DRAINED)
        case RolloutState.INSTALLING:
            return _on_hosts(view, Event.INSTALLED)
        case RolloutState.OFFERING:
            return _offered(view, go=True)
        case RolloutState.RAMPING:
            return _offered(view, go=view.held or rollout.request is not None)
        case RolloutState.SWITCHED | RolloutState.ROLLING_BACK:
            return Seen() if rollout.done else _applied(view)
        case RolloutState.ABORTING:
            return _aborting(view)
        case RolloutState.PAUSED:
            return Seen(missing=(Missing("rollout", "paused; `resume` or `abort` it"),))
        case _:
            return Seen()
