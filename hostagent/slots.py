"""Fills and empties slots: the files that describe a slot, and supervisord's group for it. One function each, all
idempotent: after a kill anywhere inside, doing it again (or doing the opposite) ends well.

Does not decide whether a slot may be touched (``hostagent.plan`` does) and registers nothing.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fleet.files import read_or_none, sync_directory, write_atomic
from fleet.loop import Trouble
from fleet.model import ServiceConfig, decode
from hostagent import failpoint, launch, nginx, strays
from hostagent.config import HostConfig
from hostagent.describe import Describe
from hostagent.http import NoAnswer
from hostagent.layout import Group, Layout
from hostagent.spec import SlotSpec
from hostagent.supervisor import Program, Supervisor, write_group
from hostagent.users import Users

#: Seconds that supervisord may take beyond a program's own time to stop, or to take up a new group.
_SLACK = 10.0
_PAUSE = 0.1


class SlotTrouble(Trouble):
    """The slot cannot be filled or emptied; the sentence says why."""


Check = Callable[[], None]


def _files() -> int:
    """Open files that an nginx worker may have: many, but no more than it will be allowed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)


class Slots:
    def __init__(self, config: HostConfig, layout: Layout, supervisor: Supervisor, users: Users) -> None:
        self._config = config
        self._layout = layout
        self._supervisor = supervisor
        self._users = users
        self._describe = Describe(config, layout, users)

    def spec(self, service: str, slot: int) -> SlotSpec | None:
        """What the slot was last told to be."""
        return decode(SlotSpec, read_or_none(self._layout.spec(service, slot)))

    # -- fill --

    def start(self, service: str, slot: int, build: str, config: ServiceConfig) -> None:
        """Flip the slot to the build's release and run its pool and its nginx. Raises Trouble or OSError."""
        if long := self._layout.too_long(service, slot):
            raise SlotTrouble(
                f"the path {long} is too long for a socket: set `run` in the host's file to a shorter one"
            )
        group = str(Group(service, slot, build))
        if self._supervisor.group(group):
            return  # what runs must not be described anew
        spec = self._describe.slot(service, slot, build, config)
        self._home(service)
        prefix = self._layout.nginx_prefix(service, slot)
        (prefix / "temp").mkdir(parents=True, exist_ok=True)
        write_atomic(prefix / "nginx.conf", nginx.render(self._values(spec, config, prefix)))
        write_atomic(self._layout.spec(service, slot), spec.encode())
        failpoint.at(service, build, "start.described")
        self._flip(service, slot, build)
        self._fresh_logs(service, slot)
        write_group(self._layout.group_conf(service, slot), group, self._programs(spec))
        self._supervisor.reload()
        failpoint.at(service, build, "start.written")
        self._supervisor.add(group)
        # supervisord starts it at its next look around; only then its states mean something.
        deadline = time.monotonic() + _SLACK
        while any(p.state == "STOPPED" for p in self._supervisor.group(group)):
            if time.monotonic() > deadline:
                raise SlotTrouble(f"supervisord does not start {group}")
            time.sleep(_PAUSE)

    def _fresh_logs(self, service: str, slot: int) -> None:
        """What the slot's last build wrote is no word of this one; it is kept where supervisord keeps older logs."""
        for log in self._layout.slot_logs(service, slot):
            if log.stat().st_size:
                log.replace(log.with_name(f"{log.name}.1"))

    def _home(self, service: str) -> None:
        """A directory of the service's own, which nothing but itself believes."""
        home, user = self._layout.home(service), self._users.of(service)
        home.mkdir(parents=True, exist_ok=True)
        if user is not None:
            os.chown(home, user, user)
        home.chmod(0o700)

    def revive(self, service: str, slot: int, build: str) -> None:
        """Have supervisord try again what it gave up."""
        for process in self._supervisor.group(str(Group(service, slot, build))):
            if process.dead:
                self._supervisor.start(process)

    def _flip(self, service: str, slot: int, build: str) -> None:
        current = self._layout.current(service, slot)
        temporary = current.with_name(".current")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(self._layout.release(service, build), current.parent))
        temporary.replace(current)
        sync_directory(current.parent)

    def _values(self, spec: SlotSpec, config: ServiceConfig, prefix: Path) -> nginx.Values:
        address = f"[{spec.address}]" if ":" in spec.address else spec.address
        return nginx.Values(
            service=spec.service,
            build=spec.build,
            host=self._config.name,
            listen=f"{address}:{spec.port}",
            stub=spec.stub,
            prefix=str(prefix),
            pool=tuple(p.endpoint for p in spec.pool),
            user=self._config.nginx_user if os.geteuid() == 0 else None,
            response_seconds=math.ceil(config.response_seconds),
            stop_seconds=math.ceil(spec.stop_seconds),
            body_bytes=config.body_bytes,
            workers=min(4, max(2, os.cpu_count() or 2)),
            files=_files(),
        )

    def _programs(self, spec: SlotSpec) -> list[Program]:
        launcher = (sys.executable, "-I", "-S", launch.__file__, str(self._layout.spec(spec.service, spec.slot)))
        return [
            Program(
                name=f"{spec.service}-{spec.slot}.{p.name}",
                argv=(*launcher, p.name),
                log=self._layout.log(spec.service, spec.slot, p.name),
                stop_seconds=spec.stop_seconds,
                stop_signal="QUIT" if p is spec.nginx else "TERM",
            )
            for p in spec.programs
        ]

    # -- empty --

    def drain(self, spec: SlotSpec, *, quiet: float, let_go: float, finish: float, check: Check) -> bool:
        """Wait until nginx serves nobody: no new request for ``quiet`` seconds (waited for at most ``let_go``), then
        nothing unfinished (at most ``finish``). The caller has deregistered the slot. False where time ran out.
        """
        start = still = time.monotonic()
        seen = -1
        while True:
            check()
            now = time.monotonic()
            try:
                status = nginx.status(spec.stub)
            except NoAnswer:
                return True  # an nginx that does not run serves nobody
            if status.requests != seen or status.busy:
                still = now
            seen = status.requests + 1  # the next question counts itself
            if not status.busy and (now - still >= quiet or now - start >= let_go):
                return now - still >= quiet
            if now - start >= let_go + finish:
                return False
            time.sleep(min(_PAUSE, quiet / 2))

    def stop(self, service: str, slot: int, build: str) -> None:
        """End the slot's group: TERM, after ``stop_seconds`` KILL, whole process groups. Raises Trouble or OSError."""
        spec = self.spec(service, slot)
        group = str(Group(service, slot, build))
        self._layout.group_conf(service, slot).unlink(missing_ok=True)
        self._supervisor.reload()
        failpoint.at(service, build, "stop.unlisted")
        self._supervisor.stop(group)
        deadline = time.monotonic() + (spec.stop_seconds if spec else 0) + _SLACK
        while not self._supervisor.remove(group):
            if time.monotonic() > deadline:
                raise SlotTrouble(f"{group} does not stop")
            time.sleep(_PAUSE)
            self._supervisor.stop(group)  # one that had just died, or was never begun, was passed over and runs now
        for program in spec.programs if spec else ():
            if alive := launch.end_leftovers(Path(program.pidfile)):
                raise SlotTrouble(f"processes of {group} do not end: {alive}")
        if alive := strays.end(str(self._layout.slot_run(service, slot))):
            raise SlotTrouble(f"processes that {group} left behind do not end: {alive}")
        failpoint.at(service, build, "stop.stopped")
        for path in (self._layout.current(service, slot), self._layout.spec(service, slot)):
            path.unlink(missing_ok=True)
