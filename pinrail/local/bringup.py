"""Starting and stopping the programs of a local fleet, and waiting until it is so. The fleet's state is kept by it.

Knows supervisord and the readiness checks; what is published and deployed afterwards is ``sample``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pinrail.errors import CommandError
from pinrail.local import layout, processes, programs, ready, supervisord
from pinrail.local.programs import Program
from pinrail.local.progress import Clock, Progress
from pinrail.local.state import FleetState
from pinrail.local.supervisord import Info, Supervisor, SupervisorTrouble

_POLL = 0.1
#: Lines of a part's log that are shown where it does not come up.
_TAIL = 8


class NotReady(CommandError):
    """A part did not come up; says which, why and where its log is."""


def tail(path: Path, lines: int = _TAIL) -> list[str]:
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 16384))
            text = f.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def wait_for(what: str, check: Callable[[], bool], seconds: float) -> None:
    """Poll until ``check`` holds. Raises CommandError (3) with ``what`` after ``seconds``."""
    clock = Clock()
    while not check():
        if clock() > seconds:
            raise CommandError(f"{what}: not within {seconds:g} s", 3)
        time.sleep(_POLL)


# -- start --


def start_supervisor(fleet: FleetState, wanted: Sequence[Program]) -> Supervisor:
    """Its pid is in the fleet's state, and on disk, as soon as there is one."""
    where = layout.of(fleet)
    pid = supervisord.start(
        wanted,
        fleet_id=fleet.id,
        socket_path=fleet.supervisor.socket,
        directory=fleet.directory,
        logs=where.logs,
        config=where.config("supervisord.conf"),
    )
    process = processes.look(pid)
    fleet.supervisor.pid, fleet.supervisor.started = pid, process.started if process else None
    fleet.save()
    supervisor = Supervisor(fleet.supervisor.socket)

    def answers() -> bool:
        if processes.look(pid) is None:
            said = tail(where.logs / "supervisord.out.log")
            raise NotReady(f"supervisord ended at once: {said[-1] if said else 'it said nothing'}")
        try:
            supervisor.programs()
        except SupervisorTrouble:
            return False
        return True

    wait_for("supervisord answers", answers, 20)
    return supervisor


def start_all(fleet: FleetState, supervisor: Supervisor, wanted: Sequence[Program], progress: Progress) -> None:
    """Stage after stage, what is in one together. Raises NotReady for the first part that does not come up."""
    for kinds in programs.STAGES:
        stage = [p for p in wanted if p.kind in kinds]
        for p in stage:
            supervisor.start(p.name)
        _await(fleet, supervisor, stage, progress)


def _await(fleet: FleetState, supervisor: Supervisor, stage: Sequence[Program], progress: Progress) -> None:
    clock = Clock()
    awaited = {p.name: p for p in stage}
    lives = _Lives()
    while awaited:
        infos = supervisor.programs()
        progress.waiting(awaited)
        for name, program in list(awaited.items()):
            info = infos[name]
            missing = _missing(fleet, info)
            if missing is None:
                progress.done(name, clock())
                del awaited[name]
            elif lives.lost(info):
                raise _failed(fleet, info, "does not stay up")
            elif clock() > program.ready_seconds:
                raise _failed(fleet, info, f"is not ready after {program.ready_seconds:g} s ({missing})")
        if awaited:
            time.sleep(_POLL)


def _missing(fleet: FleetState, info: Info) -> str | None:
    if not info.running:
        return f"it is {info.state.lower()}"
    try:
        return ready.check(fleet, info.name)
    except ready.Refused as e:
        raise _failed(fleet, info, f"is not usable: {e}") from e


class _Lives:
    """Counts processes per program: one that dies again while it is awaited has failed."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}

    def lost(self, info: Info) -> bool:
        pids = self._seen.setdefault(info.name, set())
        if info.pid:
            pids.add(info.pid)
        return info.state == "FATAL" or len(pids) > 2 or (info.state in ("BACKOFF", "EXITED") and len(pids) > 1)


def _failed(fleet: FleetState, info: Info, what: str) -> NotReady:
    log = layout.of(fleet).log(info.name)
    said = tail(log)
    lines = [f"{info.name} {what}{_taken(fleet, info)}; the last lines of {log}:", *(f"    {line}" for line in said)]
    return NotReady("\n".join(lines if said else [f"{lines[0].partition(';')[0]}; it wrote nothing to {log}"]))


def _taken(fleet: FleetState, info: Info) -> str:
    """Does somebody else hold one of its ports?"""
    own = set(processes.of_fleet(fleet.id, fleet.supervisor.pid, fleet.supervisor.started))
    for port in ports_of(fleet, info.name):
        holder = processes.listener(port)
        if holder is not None and holder.pid not in own:
            return f": port {port} is taken by {holder}"
    return ""


def ports_of(fleet: FleetState, part: str) -> list[int]:
    urls: dict[str, list[str]] = {
        "s3": [fleet.s3],
        "prometheus": [fleet.prometheus or ""],
    }
    for z in fleet.zookeeper.servers:
        urls[z.id] = [z.address]
    for b in fleet.barrier:
        urls[b.id] = [b.url]
    for e in fleet.edges:
        urls[e.id] = [e.metrics.removesuffix("/metrics")]
        urls[f"{e.id}-server"] = [e.url, e.admin]
    for h in fleet.hosts:
        urls[h.id] = [h.metrics.removesuffix("/metrics")]
    return [int(u.rpartition(":")[2]) for u in urls.get(part, []) if u]


# -- one part --


def find(supervisor: Supervisor, part: str) -> Info:
    """Raises CommandError (2) that lists the parts."""
    infos = supervisor.programs()
    if part not in infos:
        raise CommandError(f"the fleet has no part {part!r}; its parts are {', '.join(sorted(infos))}", 2)
    return infos[part]


def start_one(fleet: FleetState, supervisor: Supervisor, part: str, seconds: float = 90) -> None:
    """Running and ready afterwards."""
    find(supervisor, part)
    supervisor.start(part)
    lives, clock = _Lives(), Clock()
    while True:
        info = supervisor.programs()[part]
        missing = _missing(fleet, info)
        if missing is None:
            return
        if lives.lost(info):
            raise _failed(fleet, info, "does not stay up")
        if clock() > seconds:
            raise _failed(fleet, info, f"is not ready after {seconds:g} s ({missing})")
        time.sleep(_POLL)


def stop_one(supervisor: Supervisor, part: str, seconds: float = 30) -> None:
    """No process afterwards, and none comes back by itself."""
    find(supervisor, part)
    supervisor.stop(part)
    wait_for(f"{part} stops", lambda: supervisor.programs()[part].stopped, seconds)


# -- everything --


def stop_all(fleet: FleetState) -> None:
    """Leave no process: in order where supervisord answers, by force where not. Raises CommandError for survivors."""
    session, since = fleet.supervisor.pid, fleet.supervisor.started
    if fleet.boot == processes.boot_id():
        try:
            _stop_in_order(Supervisor(fleet.supervisor.socket))
            if session is not None:
                wait_for("supervisord ends", lambda: processes.look(session) is None, 20)
        except (SupervisorTrouble, CommandError):
            pass  # whatever still runs is found below, by its mark
    left = processes.end(fleet.id, session, since)
    if left:
        raise CommandError(f"these processes of the fleet cannot be ended: {', '.join(map(str, left))}")


def _stop_in_order(supervisor: Supervisor) -> None:
    for kinds in programs.STOPPING:
        names = [n for n, i in supervisor.programs().items() if not i.stopped and programs.kind_of(n) in kinds]
        for name in names:
            supervisor.stop(name)
        wait_for(
            "the parts stop",
            lambda names=names: all(i.stopped for n, i in supervisor.programs().items() if n in names),  # type: ignore[misc]
            30,
        )
    supervisor.shutdown()
