"""Becomes one program of a slot: ``python -I -S launch.py SPEC NAME``, run by supervisord. Standard library only.

It stands between supervisord and the program for three things that supervisord cannot do: take a command and an
environment of any content (its own file has quoting rules of its own), end what a predecessor left behind when it was
killed (an nginx master's workers go on holding the port), and see to it that the program ends when supervisord is
killed, instead of holding its port against the next one. Then it is the program: same process, same process group.

Where it is root, it also becomes the service's user on the way, with no way back.

``launch.py --noted PIDFILE USER ARGV...``, run by the agent, does the last two of these for a post-install: what an
agent that was killed left at work can be found and ended. USER is a number, or ``-``.
"""

from __future__ import annotations

import ctypes
import fnmatch
import grp
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
#: Seconds that a predecessor may go on ending by itself, and that the kernel may take after a KILL.
_GRACE = 3.0


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def processes() -> dict[int, tuple[int, int]]:
    """Every process: its group, and its start in ticks since boot. Zombies hold nothing and are left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        fields = stat.rpartition(")")[2].split()
        if fields[0] not in "ZX":
            found[int(entry.name)] = (int(fields[2]), int(fields[19]))
    return found


def note(pidfile: Path) -> None:
    """This process, so that it can be told from a later one of the same number."""
    pid = os.getpid()
    temporary = pidfile.with_name(f".{pidfile.name}.{pid}")
    temporary.write_text(f"{pid} {processes()[pid][1]} {boot()}\n")
    temporary.replace(pidfile)


def leftovers(pidfile: Path) -> tuple[int, list[int]]:
    """The noted process's group, and those of it that live."""
    try:
        pid, start, booted = pidfile.read_text().split()
    except (FileNotFoundError, ValueError):
        return 0, []
    group, started = int(pid), int(start)
    now = processes()
    reused = group in now and now[group][1] != started
    if booted != boot() or reused:
        return 0, []
    return group, [p for p, (g, s) in now.items() if g == group and s >= started]


def end_leftovers(pidfile: Path) -> list[int]:
    """Wait for what is left of the noted process's group, then kill it. Returns what still lives: normally nothing."""
    for last_resort in (False, True):
        deadline = time.monotonic() + _GRACE
        while True:
            group, alive = leftovers(pidfile)
            if not alive or group == os.getpgrp():
                return []
            # Without its leader nobody will end it; with it, it may be ending.
            if last_resort or group not in alive:
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
    return leftovers(pidfile)[1]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _become_user(uid: int) -> None:
    """For good: no set-user-ID program helps. Before ``_die_with_parent``, which a change of user would undo."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _die_with_parent(number: int, parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit("supervisord has gone")


def _directory(path: Path, user: int | None, group: str) -> None:
    """Where the pool makes its sockets; ``group`` (nginx's) may use those that are made in it."""
    path.mkdir(parents=True, exist_ok=True)
    if user is not None or group:
        os.chown(path, -1 if user is None else user, grp.getgrnam(group).gr_gid if group else -1)
        path.chmod(0o2750 if group else 0o750)


def become(command: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  # no shell is the point
    except OSError as e:
        sys.exit(f"cannot run {command[0]}: {e.strerror}")


def _seen(patterns: list[str]) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("SUPERVISOR_")}
    return {k: v for k, v in ours.items() if any(fnmatch.fnmatchcase(k, p) for p in patterns)}


def main(argv: list[str]) -> NoReturn:
    parent = os.getppid()
    if argv[1] == "--noted":
        note(Path(argv[2]))
        if argv[3] != "-":
            _become_user(int(argv[3]))
        _die_with_parent(signal.SIGKILL, parent)
        become(argv[4:], dict(os.environ))
    spec = json.loads(Path(argv[1]).read_text())
    program = next(p for p in (*spec["pool"], spec["nginx"]) if p["name"] == argv[2])
    user = program.get("user")  # what is younger than a spec that lies there may be missing in it
    pidfile = Path(program["pidfile"])
    pidfile.parent.mkdir(parents=True, exist_ok=True)
    if program is not spec["nginx"]:
        _directory(Path(spec.get("sockets") or pidfile.parent), user, spec["socket_group"])
    if alive := end_leftovers(pidfile):
        sys.exit(f"processes of a predecessor do not end: {alive}")
    note(pidfile)
    for stale in program["unlink"]:
        Path(stale).unlink(missing_ok=True)
    environment = {**_seen(spec.get("inherit", ["*"])), **program["environment"]}
    os.umask(program["umask"])
    os.chdir(program["cwd"])
    if user is not None:
        _become_user(user)
    _die_with_parent(program["orphaned"], parent)
    become(program["argv"], environment)


if __name__ == "__main__":
    main(sys.argv)
