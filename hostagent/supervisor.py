"""The host's supervisord, the only one to speak to it: its XML-RPC over a unix socket, and the files it includes.

A supervisord that is not there is ``SupervisorGone``: its programs end with it, so nothing of this host serves. One
that does not answer in time is ``SupervisorTrouble``: its programs may well be fine. Must not be asked to wait: it has
one thread for everybody, so every call here returns at once and the caller looks again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet import supervisord
from fleet.files import write_atomic
from fleet.loop import Trouble

LOG_BYTES = 4 * 1024 * 1024
_ALREADY_STARTED, _NOT_RUNNING, _BAD_NAME, _ALREADY_ADDED, _STILL_RUNNING = 60, 70, 10, 90, 91
#: States in which supervisord will not do anything by itself.
DEAD = frozenset({"FATAL", "EXITED", "STOPPED", "UNKNOWN"})


class SupervisorTrouble(Trouble):
    """It did not answer, or it answered with a fault."""


class SupervisorGone(SupervisorTrouble):
    """Nothing listens on its socket."""


@dataclass(frozen=True)
class Process:
    group: str
    name: str
    state: str
    pid: int
    error: str

    @property
    def dead(self) -> bool:
        return self.state in DEAD


@dataclass(frozen=True)
class Program:
    """One program of a group, as supervisord is to run it."""

    name: str
    argv: Sequence[str]
    log: Path
    stop_seconds: float
    stop_signal: str = "TERM"


class Supervisor:
    """Safe to use from several threads: a connection for each call."""

    def __init__(self, socket: Path, deadline: float = supervisord.DEADLINE) -> None:
        self._socket = socket
        self._deadline = deadline

    def _call(self, method: str, *arguments: object, tolerate: tuple[int, ...] = ()) -> Any:
        try:
            return supervisord.call(self._socket, method, *arguments, deadline=self._deadline)
        except supervisord.Refused as e:
            if e.code in tolerate:
                return None
            raise SupervisorTrouble(f"supervisord refuses {method}{arguments}: {e}") from e
        except supervisord.Gone as e:
            raise SupervisorGone(
                f"no supervisord listens on {self._socket}: is this host's `pinrail host server` running?"
            ) from e
        except supervisord.Unanswered as e:
            raise SupervisorTrouble(f"supervisord does not answer {e}") from e

    def pid(self) -> int:
        return int(self._call("getPID"))

    def processes(self) -> tuple[Process, ...]:
        return tuple(
            Process(p["group"], p["name"], p["statename"], p["pid"], p["spawnerr"])
            for p in self._call("getAllProcessInfo")
        )

    def group(self, name: str) -> tuple[Process, ...]:
        return tuple(p for p in self.processes() if p.group == name)

    def reload(self) -> None:
        """Read the files again. Changes nothing that runs."""
        self._call("reloadConfig")

    def add(self, group: str) -> None:
        """Run a group that ``reload`` has found."""
        self._call("addProcessGroup", group, tolerate=(_ALREADY_ADDED,))

    def start(self, process: Process) -> None:
        self._call("startProcess", f"{process.group}:{process.name}", False, tolerate=(_ALREADY_STARTED, _BAD_NAME))

    def stop(self, group: str) -> None:
        """Begin to stop all of it: the stop signal, and KILL after the program's ``stop_seconds``."""
        self._call("stopProcessGroup", group, False, tolerate=(_BAD_NAME, _NOT_RUNNING))

    def remove(self, group: str) -> bool:
        """Forget a group that has stopped; False while something of it still runs."""
        try:
            self._call("removeProcessGroup", group, tolerate=(_BAD_NAME,))
        except SupervisorTrouble as e:
            if isinstance(e.__cause__, supervisord.Refused) and e.__cause__.code == _STILL_RUNNING:
                return False
            raise
        return True


def write_group(conf: Path, group: str, programs: Sequence[Program]) -> None:
    """The file that makes ``group`` known. Words must not need quoting; ``hostagent.layout`` sees to that."""
    parts = [f"[group:{group}]\nprograms={','.join(p.name for p in programs)}\n"]
    parts += [_program(p) for p in programs]
    write_atomic(conf, "\n".join(parts))


def _program(p: Program) -> str:
    """A crash is answered by a restart; the third within a second of its start is given up, visibly.

    The agent tries again what was given up, ever more slowly; to be left dead takes an agent that is away too.
    """
    return (
        f"[program:{p.name}]\n"
        f"command={' '.join(p.argv)}\n"
        "autostart=true\nautorestart=true\nstartsecs=1\nstartretries=2\n"
        f"stopsignal={p.stop_signal}\nstopwaitsecs={math.ceil(p.stop_seconds)}\n"
        "stopasgroup=true\nkillasgroup=true\n"
        f"redirect_stderr=true\nstdout_logfile={p.log}\n"
        f"stdout_logfile_maxbytes={LOG_BYTES}\nstdout_logfile_backups=1\n"
    )
