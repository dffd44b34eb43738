"""What a host does next with one service. Pure: what is wanted and what the machine really runs, in; work, out.

The rules, of which the rest follows:

- A build that is enabled is kept where it runs; nothing is ever done to its slot but repair.
- A slot is emptied or filled only while the host holds a turn for ``enabled.serial``, or where it had already reached
  just that (repair after a crash). Until then nothing happens.
- A slot is emptied for a new build only when that build's release lies complete beside it, post-install done, somebody
  vouches for it, and its port is no other service's.
- A pool is registered while it was checked since its nginx started, and enough of its processes live.

The answer holds every piece of work that may be done now, most urgent first; doing any of them and asking again ends
in the wanted state, from wherever it was interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.model import ServiceConfig, Slot, SlotState
from hostagent.view import SlotView, View
from hostagent.work import Check, Fetch, Prepare, Prune, Revive, Start, Stop, Unpack, Work


@dataclass(frozen=True)
class Decision:
    #: What may be done now, most urgent first. Independent of each other.
    work: tuple[Work, ...]
    #: Slots to be registered, all others not.
    members: frozenset[int]
    #: ``enabled`` is reached in full: every build registered, nothing else running.
    complete: bool
    slots: tuple[Slot, ...]
    #: Why it cannot be done at all, where it cannot.
    problem: str | None = None


def decide(view: View) -> Decision:
    wanted = {e.build: e.digest for e in view.enabled.builds} if view.enabled else {}
    keep: dict[str, int] = {}
    for s in view.slots:
        if s.build in wanted:
            keep.setdefault(s.build, s.index)
    surplus = [s for s in view.slots if s.build is not None and s.index not in keep.values()]
    missing = [b for b in wanted if b not in keep]
    repair = _repairs([s for s in view.slots if s.index in keep.values()])
    healthy = {s.index for s in view.slots if _fit(view.config, s)}

    install: list[Work] = []
    going: dict[int, str] = {}
    problem = None
    if _allowed(view):
        install, going, problem = _install(view, wanted, missing, surplus)
        if not missing and healthy.issuperset(keep.values()):
            install += [Stop(s.index, s.build) for s in surplus if s.build]
    stopping = {w.slot for w in install if isinstance(w, Stop)}
    # A pool that is on its way out is neither repaired nor registered; one that waits for its turn goes on as it is.
    staying = [s for s in surplus if s.index not in stopping]
    work: list[Work] = [*repair, *install, *_repairs(staying)]
    members = frozenset(healthy - stopping)
    complete = (
        view.enabled is not None
        and _allowed(view)
        and not missing
        and not surplus
        and problem is None
        and members.issuperset(keep.values())
    )
    if not work and (old := _prunable(view, wanted)):
        work.append(old)
    return Decision(tuple(work), members, complete, _slots(view, members, stopping, going), problem)


def _allowed(view: View) -> bool:
    if view.enabled is None:
        return False
    return (view.turn is not None and view.turn >= view.enabled.serial) or view.reached.matches(view.enabled)


def _install(
    view: View, wanted: dict[str, str], missing: list[str], surplus: list[SlotView]
) -> tuple[list[Work], dict[int, str], str | None]:
    """Next step for each missing build; which slot it goes to; why one finds none."""
    own = range(view.config.slots)
    places = [s for s in view.slots if s.build is None and s.index in own]
    places += [s for s in surplus if s.index in own]
    work: list[Work] = []
    going: dict[int, str] = {}
    problem = None
    for build, place in zip(missing, places, strict=False):
        if other := view.taken.get(port := view.config.ports[place.index]):
            problem = f"{build} needs port {port}, which {other} has on this host: give one of the two other `ports`"
            continue
        going[place.index] = build
        if view.releases.get(build) != wanted[build]:
            have = build in view.archives
            work.append(Unpack(build, wanted[build]) if have else Fetch(build, wanted[build]))
        elif build in view.unprepared:
            work.append(Prepare(build, wanted[build]))
        elif place.build is not None:
            work.append(Stop(place.index, place.build))
        else:
            work.append(Start(place.index, build))
    if len(missing) > len(places):
        left = ", ".join(missing[len(places) :])
        problem = f"no slot is free for {left}: {len(wanted)} builds are enabled, the service has {view.config.slots}"
    return work, going, problem


def _repairs(slots: list[SlotView]) -> list[Work]:
    work: list[Work] = []
    for s in slots:
        if s.build is None:
            continue
        if s.dead:
            work.append(Revive(s.index, s.build))
        elif not s.checked:
            work.append(Check(s.index, s.build))
    return work


def _fit(config: ServiceConfig, s: SlotView) -> bool:
    return s.build is not None and s.nginx and s.checked and config.health.enough(s.live, s.processes)


def _slots(view: View, members: frozenset[int], stopping: set[int], going: dict[int, str]) -> tuple[Slot, ...]:
    return tuple(
        Slot(
            index=s.index,
            port=s.port,
            build=s.build or going.get(s.index),
            state=_state(s, members, stopping, going),
            processes=s.processes,
            live=s.live,
        )
        for s in view.slots
    )


def _state(s: SlotView, members: frozenset[int], stopping: set[int], going: dict[int, str]) -> SlotState:
    if s.index in stopping:
        return SlotState.STOPPING
    if s.build is None:
        return SlotState.INSTALLING if s.index in going else SlotState.EMPTY
    if s.index in members:
        return SlotState.SERVING if s.live == s.processes else SlotState.DEGRADED
    return SlotState.DEGRADED if s.checked else SlotState.STARTING


def _prunable(view: View, wanted: dict[str, str]) -> Prune | None:
    """Releases beyond those to keep, and what is left of downloads that no one waits for."""
    used = set(wanted) | {s.build for s in view.slots} | set(view.enabled.kept if view.enabled else ())
    spare = [b for b in view.releases if b not in used][view.config.keep :]
    over = [b for b in view.downloads if b not in view.releases and b not in used]
    # A kill between a release's last file and the end of its download.
    kept = view.releases.keys() - set(spare)
    done = [b for b in view.downloads & kept if wanted.get(b, view.releases[b]) == view.releases[b]]
    return Prune(tuple(sorted({*spare, *over})), tuple(sorted(done))) if spare or over or done else None
