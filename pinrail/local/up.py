"""``pinrail up`` and ``pinrail down``: a fleet from nothing, and nothing from a fleet, whatever happens in between."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pinrail.errors import CommandError
from pinrail.local import bringup, config, layout, lock, ports, processes, sample, state, tools
from pinrail.local.progress import Clock, Progress
from pinrail.local.signals import interruptible
from pinrail.local.state import FleetState


@dataclass(frozen=True)
class Wanted:
    engine: state.Engine = "varnish"
    edges: int = 2
    hosts: int = 3
    barriers: int = 2
    #: 1, or an ensemble: of three one may be lost.
    zookeepers: int = 1
    #: Publish and deploy nothing.
    bare: bool = False
    #: The first of the ports to use; None: look for free ones.
    port: int | None = None


def alive(fleet: FleetState) -> bool:
    """Its supervisord runs, and is the very process that was started for it."""
    if fleet.boot != processes.boot_id() or fleet.supervisor.pid is None:
        return False
    process = processes.look(fleet.supervisor.pid)
    return process is not None and process.started == fleet.supervisor.started


def require(directory: Path) -> FleetState:
    """The running fleet of that directory, with processes of this machine. Raises CommandError where there is none."""
    fleet = known(directory)
    if fleet.in_containers:
        raise CommandError("this fleet's parts are containers: stop and start them by docker compose", 2)
    return fleet


def known(directory: Path) -> FleetState:
    """The running fleet of that directory, or one in containers. Raises CommandError where there is none."""
    fleet = state.load(directory)
    if fleet is None:
        raise CommandError(f"there is no fleet in {directory}: pinrail up starts one")
    if not (fleet.in_containers or alive(fleet)):
        raise CommandError(f"the fleet in {directory} no longer runs: pinrail up starts a new one")
    return fleet


def up(directory: Path, wanted: Wanted, progress: Progress) -> tuple[FleetState, bool]:
    """The fleet, ready, and whether it was started now. Raises CommandError, and leaves only logs behind then."""
    if missing := tools.missing_now(wanted.engine):
        raise CommandError("; ".join(missing) + " (script/setup does it for you, pinrail doctor shows more)")
    layout.claim(directory)
    try:
        with lock.held(directory):
            before = state.load(directory)
            if before is not None:
                if before.phase == "running" and alive(before):
                    return before, False
                progress.say(f"what an earlier fleet left in {directory} is removed first: {_why_stale(before)}")
                _clear(before, keep=False)
                layout.claim(directory)
            return _start(directory, wanted, progress), True
    except lock.Locked as e:
        raise CommandError(f"the fleet in {directory} is being started or stopped by process {e.pid}") from e


def _why_stale(fleet: FleetState) -> str:
    if fleet.boot != processes.boot_id():
        return "the machine was restarted since"
    return "its start was cut off" if fleet.phase == "starting" else "its supervisord is gone"


def _start(directory: Path, wanted: Wanted, progress: Progress) -> FleetState:
    fleet = _plan(directory, wanted)
    with interruptible() as ignore:
        try:
            _bring_up(fleet, wanted, progress)
        except BaseException as e:
            ignore()
            interrupted = not isinstance(e, Exception)
            progress.say("stopping what was started")
            _clear(fleet, keep=not interrupted)
            if isinstance(e, CommandError):
                raise CommandError(f"{e}\nnothing is left running; all logs are in {directory / 'logs'}", e.code) from e
            raise
    return fleet


def _plan(directory: Path, wanted: Wanted) -> FleetState:
    try:
        fleet = layout.plan(
            directory,
            engine=wanted.engine,
            edges=wanted.edges,
            hosts=wanted.hosts,
            barriers=wanted.barriers,
            zookeepers=wanted.zookeepers,
            first_port=wanted.port,
        )
    except ports.NoPort as e:
        holder = processes.listener(e.port) if e.port is not None else None
        by = f" by {holder}" if holder else ""
        raise CommandError(f"{e}{by}; leave --port away to have free ports looked for") from e
    if tools.find("prometheus") is None:
        fleet.prometheus = None
    return fleet


def _bring_up(fleet: FleetState, wanted: Wanted, progress: Progress) -> None:
    clock = Clock()
    fleet.save()  # from here on `pinrail down` finds what there is
    programs = config.write(fleet)
    with progress:
        supervisor = bringup.start_supervisor(fleet, programs)
        bringup.start_all(fleet, supervisor, programs, progress)
        if not wanted.bare:
            sample.serve(fleet, progress)
    fleet.phase = "running"
    fleet.save()
    progress.say(f"the fleet runs, after {clock():.1f} s; pinrail status shows it, pinrail down ends it")
    progress.say(f"its page is {fleet.barrier[0].url}/ (pinrail page gives the address with a token)")


def down(directory: Path, *, keep: bool) -> bool:
    """Whether there was a fleet. Afterwards there is none. Raises CommandError where something cannot be ended."""
    if not directory.is_dir() or (state.load(directory) is None and not (directory / lock.FILE).exists()):
        return False
    for _ in range(2):
        try:
            with lock.held(directory), interruptible() as ignore:
                ignore()
                fleet = state.load(directory)
                if fleet is None:
                    return False
                _clear(fleet, keep=keep)
                return True
        except lock.Locked as e:
            _end_starter(directory, e.pid)
    raise CommandError(f"the fleet in {directory} is held by another command; try again")


def _end_starter(directory: Path, pid: int | None, seconds: float = 60) -> None:
    """Another command is at it: ask it to end (``up`` then cleans up itself), and wait until it has."""
    if pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    clock = Clock()
    while clock() < seconds:
        try:
            with lock.held(directory):
                return
        except lock.Locked:
            time.sleep(0.1)
        except FileNotFoundError:
            return
    raise CommandError(f"process {pid} holds the fleet in {directory} and does not end")


def _clear(fleet: FleetState, *, keep: bool) -> None:
    bringup.stop_all(fleet)
    layout.remove(fleet.directory, fleet.run, keep=keep)
