"""What to do next, and what to acknowledge. Pure: what is wanted and what Varnish reports -> actions, acks.

The order is what makes a switch one instant: commits (``vcl.label``) before anything that compiles, the current routing
before the staged one, discards last. ``decide`` returns one step; the agent does it, looks again and asks again, until
there is nothing to do. Every step is safe to be the last one before a crash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge import render
from edge.look import Look, Vcl
from edge.render import Rendered, Route
from fleet.model import Ack, Match

NOT_COUNTED = "requests are not counted yet"

_OURS = re.compile(r"v_[a-z0-9-]+_[0-9a-f]{16}|root_[0-9a-f]{16}|svc-[a-z0-9-]+")


@dataclass(frozen=True)
class Want:
    """One service as it should be. ``current`` and ``staged`` are the same routing with different members or own VCL,
    the newest first: whichever is ready can be used, so that a commit never waits for a compile."""

    service: str
    epoch: int
    match: tuple[Match, ...]
    current: tuple[Rendered, ...]
    staged: tuple[Rendered, ...] = ()
    #: Seconds after which the probes of a VCL of this service have run, whatever they found.
    probing: float = 0.0
    #: Seconds after which a discarded VCL of this service is not waited for any more; 0: never.
    draining: float = 0.0
    #: What was wanted before, and may be what new requests still use.
    former: tuple[Rendered, ...] = ()


@dataclass(frozen=True)
class Memory:
    """What the list of VCLs does not tell. ``epochs``: VCL -> last epoch that it was rendered for; ``ready``: its own
    probes have run in this child; ``refused``: VCL -> what the compiler said; ``overdue``: discarded, and busy for
    longer than anyone waits; ``cut``: those of them that have been seen to; ``endpoints``: VCL -> where it sends
    requests."""

    epochs: Mapping[str, int] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    overdue: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    endpoints: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    vcl: Rendered
    staged: bool = False


@dataclass(frozen=True)
class Label:
    label: str
    name: str


@dataclass(frozen=True)
class Use:
    name: str


@dataclass(frozen=True)
class Discard:
    name: str


@dataclass(frozen=True)
class Cut:
    """End what is left on the VCL ``name`` to ``endpoints``, where no VCL that is in use sends anything any more."""

    name: str
    endpoints: frozenset[str]


Action = Load | Label | Use | Discard | Cut


@dataclass(frozen=True)
class Step:
    """``actions`` to do now, in order. ``waiting``: VCLs that are loaded and whose probes have yet to run."""

    actions: tuple[Action, ...]
    waiting: frozenset[str] = frozenset()


def targets(look: Look) -> dict[str, str]:
    """Label -> the VCL it points to, as Varnish reports it."""
    return {v.name: v.target for v in look.vcls if v.target is not None}


def loaded(look: Look) -> dict[str, Vcl]:
    """The VCLs that can be used; not labels, not those that are being discarded."""
    return {v.name: v for v in look.vcls if v.target is None and v.status != "discarded"}


def active(look: Look) -> str | None:
    return next((v.name for v in look.vcls if v.status == "active"), None)


def _first(choices: Sequence[Rendered], have: Mapping[str, Vcl], ready: frozenset[str]) -> Rendered | None:
    return next((r for r in choices if r.name in have and r.name in ready), None)


def routes(wants: Sequence[Want], look: Look) -> tuple[Route, ...]:
    """The services that the root can hand over to: those whose label exists."""
    known = targets(look)
    return tuple(Route(w.service, w.match) for w in wants if render.label(w.service) in known)


def applied(want: Want, look: Look) -> bool:
    """Do new requests of the service use the latest routing?"""
    return targets(look).get(render.label(want.service)) in {r.name for r in want.current}


def red(
    wants: Sequence[Want],
    look: Look,
    *,
    rostered: bool,
    dead: frozenset[str],
    unknown: frozenset[str] = frozenset(),
    counting: bool = True,
) -> str | None:
    """Why the health page must not be green; None when it may.

    A page once green stays so while a new plan is being loaded: until this edge has acknowledged it, the fleet does
    not go on. That holds for as long as the fleet waits for this edge (``rostered``). ``dead``: services whose default
    has no healthy host; only when that is all of them would another edge do better. ``unknown``: services whose plan
    this edge cannot read and never could; another edge may have one from before. ``counting``: requests are counted.
    """
    behind = [w.service for w in wants if not applied(w, look)] + list(unknown)
    was_green = active(look) == render.root(routes(wants, look), None).name
    if behind and not (was_green and rostered):
        return f"the latest plan is not applied yet: {', '.join(sorted(behind))}"
    if not counting and not was_green:
        return NOT_COUNTED
    if wants and all(w.service in dead for w in wants):
        return f"no healthy host: {', '.join(sorted(dead))}"
    return None


def decide(wants: Sequence[Want], look: Look, memory: Memory, why_red: str | None) -> Step:
    """The next step towards ``wants``. Nothing to do and nothing waiting: converged."""
    have, points = loaded(look), targets(look)
    coming = [_next(choices, memory) for w in wants for choices in (w.current, w.staged)]
    waiting = frozenset(r.name for r in coming if r and r.name in have and r.name not in memory.ready)
    if actions := commits(wants, look, memory.ready):
        return Step(actions, waiting)
    for phase in (_loads_current, _root, _loads_staged, _discards, _cuts):
        if actions := phase(wants, look, memory, why_red, have, points):
            return Step(actions, waiting)
    return Step((), waiting)


def colour(wants: Sequence[Want], look: Look, memory: Memory, why_red: str | None) -> tuple[Action, ...]:
    """What makes the health page what it must be, and changes nothing else."""
    return _root(wants, look, memory, why_red, loaded(look), targets(look))


def commits(wants: Sequence[Want], look: Look, ready: frozenset[str]) -> tuple[Action, ...]:
    """For each service the newest that is ``ready``, where something else is in use. Compiles nothing."""
    have, points = loaded(look), targets(look)
    found = []
    for w in wants:
        label = render.label(w.service)
        best = _first(w.current, have, ready)
        if best and points.get(label) != best.name:
            found.append(Label(label, best.name))
    return tuple(found)


def _next(choices: Sequence[Rendered], memory: Memory) -> Rendered | None:
    """What is worth having: the newest that the compiler does not refuse."""
    return next((r for r in choices if r.name not in memory.refused), None)


def _load(choices: Sequence[Rendered], memory: Memory, have: Mapping[str, Vcl]) -> Rendered | None:
    best = _next(choices, memory)
    return best if best and best.name not in have else None


def _loads_current(
    wants: Sequence[Want], look: Look, memory: Memory, _: str | None, have: dict[str, Vcl], points: dict[str, str]
) -> tuple[Action, ...]:
    """One at a time: between two compiles another service may have something to commit."""
    return next(((Load(r),) for w in wants if (r := _load(w.current, memory, have))), ())


def _root(
    wants: Sequence[Want], look: Look, memory: Memory, why_red: str | None, have: dict[str, Vcl], points: dict[str, str]
) -> tuple[Action, ...]:
    wanted = render.root(routes(wants, look), why_red)
    if wanted.name in memory.refused or active(look) == wanted.name:
        return ()
    return (Use(wanted.name),) if wanted.name in have else (Load(wanted), Use(wanted.name))


def _loads_staged(
    wants: Sequence[Want], look: Look, memory: Memory, _: str | None, have: dict[str, Vcl], points: dict[str, str]
) -> tuple[Action, ...]:
    return next(((Load(r, staged=True),) for w in wants if (r := _load(w.staged, memory, have))), ())


def _discards(
    wants: Sequence[Want], look: Look, memory: Memory, why_red: str | None, have: dict[str, Vcl], points: dict[str, str]
) -> tuple[Action, ...]:
    """Everything of ours that is neither used nor staged. Older members stay until the newer ones are ready."""
    keep = set(points.values()) | {active(look)} | {render.label(w.service) for w in wants}
    for w in wants:
        for choices in (w.current, w.staged):
            best = _first(choices, have, memory.ready)
            last = choices.index(best) if best else len(choices)
            keep |= {r.name for r in choices[: last + 1]}
    gone = [v.name for v in look.vcls if v.status != "discarded" and v.name not in keep and _OURS.fullmatch(v.name)]
    # An older root depends on its labels until its last request ends: Varnish would refuse to discard those.
    if any(render.is_root(v.name) and v.name != active(look) for v in look.vcls):
        gone = [name for name in gone if not name.startswith(render.label(""))]
    # Who depends goes before what it depends on can: roots, then labels, then services' VCLs; as their names sort.
    return tuple(Discard(n) for n in sorted(gone))


def _cuts(
    wants: Sequence[Want], look: Look, memory: Memory, _: str | None, have: dict[str, Vcl], points: dict[str, str]
) -> tuple[Action, ...]:
    """Once for each VCL that is overdue. What goes to hosts that still serve goes on: nobody waits for it."""
    used = {at for w in wants for r in (*w.current, *w.staged) for _, at in r.backends.values()}
    used |= {at for name in have for at in memory.endpoints.get(name, ())}
    return tuple(Cut(n, memory.endpoints.get(n, frozenset()) - used) for n in sorted(memory.overdue - memory.cut))


def settled(want: Want, look: Look, memory: Memory) -> bool:
    """The newest is in use, and staged where something is: older renderings are not needed any more."""
    have = loaded(look)
    now = targets(look).get(render.label(want.service)) == want.current[0].name
    return now and (not want.staged or (want.staged[0].name in have and want.staged[0].name in memory.ready))


def ack(want: Want, look: Look, memory: Memory, *, routed: bool, ack_of: Ack) -> Ack:
    """What this edge really does with the plan. ``ack_of`` carries health, members and error; ``routed``: the active
    root is one of ours and hands over to the service."""
    have, names = loaded(look), {r.name for r in want.current}
    target = targets(look).get(render.label(want.service))
    if look.child is None or not routed or target not in have:
        done = 0
    elif target in names:
        done = want.epoch
    else:
        done = min(memory.epochs.get(target, 0), max(want.epoch - 1, 0))
    if not want.staged:
        staged = done
    elif any(r.name in have and r.name in memory.ready and have[r.name].warm for r in want.staged):
        staged = want.epoch
    else:
        staged = min(done, want.epoch - 1)
    harmless = names | {r.name for r in want.staged} | {target}
    older = [
        v.name
        for v in look.vcls
        if v.target is None
        and v.name.startswith(render.prefix(want.service))
        and v.name not in harmless
        and v.name not in memory.overdue
    ]
    drained = min([done, *(memory.epochs.get(n, 0) for n in older)])
    return ack_of.model_copy(update={"applied": done, "staged": staged, "drained": drained})
