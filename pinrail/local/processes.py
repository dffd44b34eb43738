"""The fleet's processes as /proc shows them: whose they are, and ending those that nobody ends any more.

A process belongs to a fleet when its environment carries the fleet's mark, or when it lives in the session of the
fleet's supervisord (nginx overwrites its environment with its title). Zombies are dead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "PINRAIL_FLEET"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    pid: int
    session: int
    state: str
    #: Clock ticks since boot.
    started: int


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def look(pid: int) -> Process | None:
    """None where there is no such process, or only its zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    process = Process(pid, int(fields[3]), fields[0], int(fields[19]))
    return None if process.state in "ZX" else process


def _all() -> Iterable[Process]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (p := look(int(entry.name))) is not None:
            yield p


def _marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def of_fleet(fleet_id: str, session: int | None, since: int | None) -> list[int]:
    """All processes of that fleet but the caller. ``session`` and ``since``: its supervisord's pid and start."""
    mark = f"{MARK}={fleet_id}".encode()
    own = os.getpid()
    return sorted(
        p.pid
        for p in _all()
        if p.pid != own
        and (
            _marked(p.pid, mark)
            or (session is not None and since is not None and p.session == session and p.started >= since)
        )
    )


def end(fleet_id: str, session: int | None, since: int | None, *, grace: float = 3.0) -> list[int]:
    """TERM to all processes of the fleet, after ``grace`` seconds KILL. Those that are left, normally none.

    Looks again before each signal: what is signalled belongs to the fleet at that moment.
    """
    began = time.monotonic()
    sent = None
    while left := of_fleet(fleet_id, session, since):
        passed = time.monotonic() - began
        if passed > grace + 3.0:
            return left
        wanted = signal.SIGTERM if passed < grace else signal.SIGKILL
        if wanted is not sent or wanted is signal.SIGKILL:
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, wanted)
            sent = wanted
        time.sleep(0.05)
    return []


@dataclass(frozen=True)
class Holder:
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def listener(port: int) -> Holder | None:
    """Who listens on that TCP port on any address; None where that cannot be seen."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        inodes |= {r[9] for r in rows if r[3] == "0A" and int(r[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{i}]" for i in inodes}
    for p in _all() if wanted else ():
        with suppress(OSError):  # gone, or another user's
            if any(str(fd.readlink()) in wanted for fd in (_PROC / str(p.pid) / "fd").iterdir()):
                return Holder(p.pid, (_PROC / str(p.pid) / "comm").read_text().strip())
    return None
