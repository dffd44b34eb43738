"""What to do next, and what to acknowledge. Pure: what is wanted and what nginx reports -> a step, acks.

A switch is a file; everything else is a reload, which is prepared first: the new configuration is tested, and clients
are asked to close their idle connections, so that the reload cuts none under a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.nginx.look import Look
from edge.nginx.render import Configuration, Part, changed_flag, closing_flag, commit_flag
from fleet.model import Ack

NOT_ASKED = "not every host has been asked yet"


@dataclass(frozen=True)
class Want:
    """One service as it should be. ``part`` is None where nginx cannot express it."""

    service: str
    epoch: int
    part: Part | None


@dataclass(frozen=True)
class Memory:
    """What nginx does not tell. ``epochs``: (service, key) -> last epoch of that routing; ``refused``: configuration ->
    why it was not taken; ``routed``: worker -> routings that requests in it may be on, None for one not known of."""

    epochs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    routed: Mapping[int, frozenset[tuple[str, str]] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Commit:
    """The staged routing of ``service`` becomes the one in force."""

    service: str
    staged: str


@dataclass(frozen=True)
class Reload:
    configuration: Configuration


@dataclass(frozen=True)
class Forget:
    """A flag that nothing looks at any more, or that would commit what nobody has committed."""

    flag: str


Action = Commit | Reload | Forget


def applied(want: Want, look: Look) -> bool:
    """Do new requests of the service use the latest routing?"""
    now = look.marker.services.get(want.service)
    return now is not None and want.part is not None and now.active == want.part.current


def moves(wants: Sequence[Want], look: Look) -> bool:
    """Would what is wanted route a request otherwise than now, its hosts aside?"""
    return look.marker.services.keys() != {w.service for w in wants} or not all(applied(w, look) for w in wants)


def decide(
    wants: Sequence[Want], wanted: Configuration, look: Look, flags: frozenset[str], memory: Memory, *, complete: bool
) -> tuple[Action, ...]:
    """Commits before anything that takes time. ``complete``: every host in ``wanted`` has been probed."""
    if commits := switches(wants, look):
        return commits
    if stale := _stale(look, flags):
        return tuple(Forget(f) for f in sorted(stale))
    behind = any(not applied(w, look) for w in wants)
    # A flag that only workers of an older configuration may look at must not commit what the wanted one stages.
    clear = not flags & ({commit_flag(p.service, p.staged) for p in wanted.parts if p.staged} - _used(look))
    if look.marker.name != wanted.name and wanted.name not in memory.refused and (complete or behind) and clear:
        return (Reload(wanted),)
    closing = closing_flag(look.marker.name)
    # A reload that is not wanted any more: connections may be kept again.
    return (Forget(closing),) if closing in flags else ()


def switches(wants: Sequence[Want], look: Look) -> tuple[Action, ...]:
    """Commits; and the way back where a plan was put back that is older than what was committed."""
    found: list[Action] = []
    for w in wants:
        now = look.marker.services.get(w.service)
        if now is None or w.part is None or now.staged is None or now.active == w.part.current:
            continue
        if w.part.current == now.staged:
            found.append(Commit(w.service, now.staged))
        elif w.part.current == now.current:
            found.append(Forget(commit_flag(w.service, now.staged)))
    return tuple(found)


def _used(look: Look) -> frozenset[str]:
    """The flags that the configuration in force looks at."""
    used = {commit_flag(s, r.staged) for s, r in look.marker.services.items() if r.staged}
    return frozenset({*used, closing_flag(look.marker.name)})


def _stale(look: Look, flags: frozenset[str]) -> frozenset[str]:
    """Of the commit flags: those that no configuration in use looks at. A worker that finishes looks at its own."""
    if look.leaving:
        return frozenset()
    left = flags & _used(look)
    kept = left | {changed_flag(look.marker.name)} if left else left
    return frozenset(f for f in flags if "." in f) - kept


def red(
    wants: Sequence[Want],
    look: Look,
    *,
    green: bool,
    rostered: bool,
    dead: frozenset[str],
    unknown: frozenset[str],
    asked: bool,
) -> str | None:
    """Why the health page must not be green; None when it may. A page once green (``green``) stays so while a new plan
    is prepared, for as long as the fleet waits for this edge (``rostered``). ``asked``: every host has been probed, or
    had its time; until then a version may look gone whose hosts are only slow to answer."""
    behind = sorted({*(w.service for w in wants if not applied(w, look)), *unknown})
    if behind and not (green and rostered):
        return f"the latest plan is not applied yet: {', '.join(behind)}"
    if wants and all(w.service in dead for w in wants):
        return f"no healthy host: {', '.join(sorted(dead))}"
    return None if green or asked else NOT_ASKED


def drained(want: Want, look: Look, memory: Memory) -> bool:
    """Is no request of the service on a routing other than the wanted one, in any worker?"""
    if want.part is None or not applied(want, look):
        return False
    for pid in look.workers | look.leaving:
        routings = memory.routed.get(pid)
        if routings is None or any(s == want.service and k != want.part.current for s, k in routings):
            return False
    return True


def ack(want: Want, look: Look, memory: Memory, *, last_drained: int, ack_of: Ack) -> Ack:
    """What this edge really does with the plan. ``ack_of`` carries health, members and error."""
    now = look.marker.services.get(want.service)
    if now is None:
        done = 0
    elif applied(want, look):
        done = want.epoch
    else:
        done = min(memory.epochs.get((want.service, now.active), 0), max(want.epoch - 1, 0))
    staged = done
    if (
        done == want.epoch
        and want.part
        and want.part.staged
        and now
        and (now.committed or now.staged != want.part.staged)
    ):
        staged = want.epoch - 1
    finished = done if drained(want, look, memory) else min(done, last_drained)
    return ack_of.model_copy(update={"applied": done, "staged": staged, "drained": finished})
