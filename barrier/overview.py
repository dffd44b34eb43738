"""One service at one glance, as the page shows it. Pure: a snapshot in, the view out.

However large the fleet is, a view stays small: of edges and hosts those that need attention come first, and only so
many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from barrier import machine, predicates, turns
from barrier.bodies import BarrierView, EdgeMissing, RolloutView, Waiting
from barrier.predicates import Edges, Missing
from barrier.snapshot import Snapshot
from fleet.model import Ack, EdgeInfo, HostStatus, Plan, Rollout, RolloutState, Slot

#: Edges, hosts, and those missing at a barrier, that are shown by name.
SHOWN = 200
#: Rollouts in the list of past ones.
PAST = 10

Verb = Literal["pause", "resume", "abort", "rollback"]
VERBS: tuple[Verb, ...] = ("pause", "resume", "abort", "rollback")


class Line(BaseModel):
    """A service among others. ``trouble``: it cannot be read, and why."""

    service: str
    default: str | None = None
    serving: list[str] = Field(default_factory=list)
    rollout: int | None = None
    build: str | None = None
    state: RolloutState | None = None
    stalled: bool = False
    trouble: str | None = None


class EdgeLine(BaseModel):
    name: str
    rostered: bool
    alive: bool
    engine: str
    url: str
    ack: Ack | None
    #: What it has not done of the plan; None where it is up to date.
    behind: str | None


HostIs = Literal["ready", "working", "waiting", "failed", "gone"]


class HostLine(BaseModel):
    name: str
    role: str
    address: str
    slots: list[Slot]
    #: As far as what it must run goes.
    state: HostIs
    #: What it is doing, what it waits for, or what went wrong.
    why: str | None
    turn: bool


class Wave(BaseModel):
    """How far the hosts are with what they must run."""

    serial: int
    hosts: int
    reached: int
    turns: int
    limit: int
    failed: int
    max_failures: int


class VersionLine(BaseModel):
    build: str
    #: default, previous, new, ramp, staged: what it is in the plan.
    roles: list[str]
    registered: int
    #: Edges that see their floor of it healthy, of those that barriers wait for.
    ready: int


class Past(BaseModel):
    """A rollout in the list; its history is asked for by its number."""

    number: int
    build: str
    previous: str | None
    by: str
    reason: str
    state: RolloutState
    done: bool
    began: float | None
    seconds: float
    says: str


class Overview(BaseModel):
    service: str
    strategy: str
    when_stalled: str
    give_up_seconds: float
    floor: int
    plan: Plan
    versions: list[VersionLine]
    edges: list[EdgeLine]
    edges_total: int
    rostered: int
    hosts: list[HostLine]
    hosts_total: int
    wave: Wave
    barriers: list[BarrierView]
    #: The active rollout, else the last one.
    rollout: RolloutView | None
    #: What may be asked of it now.
    can: list[Verb]
    #: The one that begins when the active one is over.
    queued: Past | None
    past: list[Past]


def edge_lines(snap: Snapshot, infos: dict[str, EdgeInfo]) -> list[EdgeLine]:
    lines = []
    for name in sorted({*snap.fleet.roster, *snap.fleet.alive}):
        info = infos.get(name) or EdgeInfo(name=name)
        alone = Edges((name,), frozenset(snap.fleet.alive), snap.acks)
        missing = predicates.staged(alone, snap.plan.epoch) or predicates.drained(alone, snap.plan.epoch)
        lines.append(
            EdgeLine(
                name=name,
                rostered=name in snap.fleet.roster,
                alive=name in snap.fleet.alive,
                engine=info.engine,
                url=info.url,
                ack=snap.acks.get(name),
                behind=missing[0].why if missing else None,
            )
        )
    return sorted(lines, key=lambda e: (e.behind is None and e.alive, e.name))


_FIRST: dict[HostIs, int] = {"failed": 0, "gone": 1, "working": 2, "waiting": 3, "ready": 4}


def host_lines(snap: Snapshot) -> list[HostLine]:
    lines = [_host(snap, name, status) for name, status in snap.hosts.items()]
    for name in snap.turns.keys() - snap.hosts.keys():
        gone = HostLine(
            name=name, role="default", address="", slots=[], state="gone", why=turns.missed(None), turn=True
        )
        lines.append(gone)
    return sorted(lines, key=lambda h: (_FIRST[h.state], h.name))


def _host(snap: Snapshot, name: str, status: HostStatus) -> HostLine:
    serial = snap.enabled_of(status.role).serial
    held = snap.turns.get(name)
    turn = held is not None and held.serial >= serial
    state: HostIs
    if turns.failed(status, serial) or (status.error and status.serial >= serial):
        state, why = "failed", status.error
    elif name in snap.missed:
        state, why = "failed", turns.missed(status)
    elif status.serial >= serial:
        state, why = "ready", None
    elif turn:
        state, why = "working", status.error or status.step or "has its turn and has not begun"
    else:
        state, why = "waiting", status.error or "waits for its turn"
    return HostLine(
        name=name,
        role=status.role,
        address=status.address,
        slots=list(status.slots),
        state=state,
        why=why,
        turn=turn,
    )


def _wave(snap: Snapshot, hosts: Sequence[HostLine]) -> Wave:
    waves = snap.config.waves
    return Wave(
        serial=snap.enabled.serial,
        hosts=len(hosts),
        reached=sum(h.state == "ready" for h in hosts),
        turns=sum(h.turn and h.state != "ready" for h in hosts),
        limit=turns.limit(waves, len(hosts)),
        failed=sum(h.state in ("failed", "gone") for h in hosts),
        max_failures=waves.max_failures,
    )


def _versions(snap: Snapshot) -> list[VersionLine]:
    plan, rollout = snap.plan, snap.rollout
    coming = rollout.build if rollout and not rollout.done else None
    builds = list(dict.fromkeys((*plan.serving, *((coming,) if coming else ()))))
    lines = []
    for build in builds:
        roles = []
        if build == plan.default:
            roles.append("default")
        elif build == coming:
            roles.append("new")
        elif build in plan.serving:
            roles.append("previous")
        if plan.ramp and plan.ramp.version == build:
            roles.append(f"ramp {plan.ramp.percent} %")
        if plan.staged and plan.staged.default == build:
            roles.append("staged")
        registered = snap.members.get(build, 0)
        lacking = predicates.healthy(snap.edges, build, registered, snap.config.health.floor)
        lines.append(
            VersionLine(
                build=build,
                roles=roles,
                registered=registered,
                ready=len(snap.fleet.roster) - len(lacking),
            )
        )
    return lines


def _barrier(snap: Snapshot, identity: str, missing: Sequence[Missing]) -> BarrierView:
    named = [EdgeMissing(edge=m.who, why=m.why) for m in missing[:SHOWN]]
    return BarrierView(id=identity, epoch=snap.plan.epoch, met=not missing, missing=named)


def _barriers(snap: Snapshot) -> list[BarrierView]:
    edges, epoch = snap.edges, snap.plan.epoch
    found = [
        _barrier(snap, f"applied-{epoch}", predicates.applied(edges, epoch)),
        _barrier(snap, f"staged-{epoch}", predicates.staged(edges, epoch)),
        _barrier(snap, f"drained-{epoch}", predicates.drained(edges, epoch)),
    ]
    for version in snap.plan.serving:
        registered, floor = snap.members.get(version, 0), snap.config.health.floor
        lacking = predicates.healthy(edges, version, registered, floor)
        found.append(_barrier(snap, f"healthy-{version}", lacking))
    return found


def can(snap: Snapshot, rollout: Rollout | None) -> list[Verb]:
    """What the page offers; whether it is granted, the API and the leader say. A rollback of what has not switched
    yet is the same as an abort, and is not offered twice."""
    if rollout is None:
        return []
    if rollout.done:
        previous = rollout.previous
        back = (
            rollout.state is RolloutState.SWITCHED
            and rollout.strategy == "dual"
            and snap.rollout is None
            and snap.plan.default == rollout.build
            and previous in snap.plan.serving
            and snap.members.get(previous or "", 0) > 0
        )
        return ["rollback"] if back else []
    asked = rollout.request
    if asked is not None and asked.verb in ("abort", "rollback"):
        return []
    allowed: list[Verb] = [v for v in VERBS if machine.allowed(rollout.state, v) and machine.gives_way(asked, v)]
    if asked is not None and asked.verb in allowed:
        allowed.remove(asked.verb)
    if "abort" in allowed and "rollback" in allowed:
        allowed.remove("rollback")
    return allowed


def _past(rollout: Rollout) -> Past:
    last = rollout.history[-1] if rollout.history else None
    return Past(
        number=rollout.number,
        build=rollout.build,
        previous=rollout.previous,
        by=rollout.by,
        reason=rollout.reason,
        state=rollout.state,
        done=rollout.done,
        began=rollout.history[0].at if rollout.history else None,
        seconds=round(sum(e.seconds or 0 for e in rollout.history), 1),
        says=last.text if last else "",
    )


def overview(
    snap: Snapshot, infos: dict[str, EdgeInfo], past: Sequence[Rollout], missing: Sequence[Waiting]
) -> Overview:
    """``past``: the last rollouts, newest first, the active one among them. ``missing``: who that one waits for."""
    rollout = snap.rollout or (past[0] if past else None)
    edges, hosts = edge_lines(snap, infos), host_lines(snap)
    shown = None
    if rollout is not None:
        fields = {f: getattr(rollout, f) for f in Rollout.model_fields}
        shown = RolloutView(**fields, missing=list(missing[:SHOWN]))
    return Overview(
        service=snap.service,
        strategy=snap.config.strategy,
        when_stalled=snap.config.when_stalled,
        give_up_seconds=snap.config.give_up_seconds,
        floor=snap.config.health.floor,
        plan=snap.plan.model_copy(update={"previews": ()}),  # their tokens are nobody's business here
        versions=_versions(snap),
        edges=edges[:SHOWN],
        edges_total=len(edges),
        rostered=len(snap.fleet.roster),
        hosts=hosts[:SHOWN],
        hosts_total=len(hosts),
        wave=_wave(snap, hosts),
        barriers=_barriers(snap),
        rollout=shown,
        can=can(snap, rollout),
        queued=_past(snap.queue.rollout) if snap.queue and snap.queue.rollout else None,
        past=[_past(r) for r in past[:PAST]],
    )
