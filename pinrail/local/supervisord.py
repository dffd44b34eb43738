"""The fleet's supervisord: its file, its start, and its XML-RPC on a unix socket. The only one to talk to it.

What programs there are is decided elsewhere.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet import supervisord
from fleet.files import write_atomic
from fleet.loop import Trouble
from pinrail.local import processes, tools
from pinrail.local.programs import Program

#: Its faults: what was asked for is so already.
_ALREADY_STARTED, _NOT_RUNNING = 60, 70
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


class SupervisorTrouble(Trouble):
    """The fleet's supervisord does not answer, or refused."""


@dataclass(frozen=True)
class Info:
    """One program as supervisord sees it. ``pid`` is 0 while it has no process."""

    name: str
    state: str
    pid: int
    #: supervisord's own words, e.g. ``Exited too quickly (process log may have details)``.
    description: str

    @property
    def running(self) -> bool:
        return self.state == "RUNNING"

    @property
    def stopped(self) -> bool:
        return self.state in ("STOPPED", "EXITED", "FATAL")


# -- its file and its start --


def environment(fleet_id: str) -> dict[str, str]:
    """What every part inherits: the caller's, without proxies and Pinrail's own, and with the fleet's mark."""
    kept = {k: v for k, v in os.environ.items() if k.lower() not in _PROXIES and not k.startswith("PINRAIL_")}
    return kept | {"PATH": tools.search_path(), "PYTHONUNBUFFERED": "1", processes.MARK: fleet_id}


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _pairs(variables: Mapping[str, str]) -> str:
    return _escape(",".join(f'{k}="{v}"' for k, v in variables.items()))


def render(programs: Sequence[Program], *, socket_path: Path, directory: Path, logs: Path) -> str:
    lines = [
        "[supervisord]",
        "nodaemon = true",
        f"directory = {_escape(str(directory))}",
        f"logfile = {_escape(str(logs / 'supervisord.log'))}",
        "logfile_maxbytes = 5MB",
        "logfile_backups = 1",
        f"pidfile = {_escape(str(socket_path.parent / 'supervisord.pid'))}",
        f"childlogdir = {_escape(str(logs))}",
        "minfds = 1024",
        "umask = 022",
        *(["user = root"] if os.geteuid() == 0 else []),
        "[unix_http_server]",
        f"file = {_escape(str(socket_path))}",
        "chmod = 0600",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for p in programs:
        lines += [
            f"[program:{p.name}]",
            f"command = {_escape(shlex.join(p.argv))}",
            *([f"environment = {_pairs(p.environment)}"] if p.environment else []),
            "autostart = false",
            "autorestart = true",
            "startsecs = 1",
            "startretries = 50",
            f"stopwaitsecs = {p.stop_seconds}",
            "stopasgroup = true",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {_escape(str(logs / (p.name + '.log')))}",
            "stdout_logfile_maxbytes = 5MB",
            "stdout_logfile_backups = 1",
        ]
    return "\n".join(lines) + "\n"


def start(
    programs: Sequence[Program], *, fleet_id: str, socket_path: Path, directory: Path, logs: Path, config: Path
) -> int:
    """Start it in a session of its own, with nothing running yet; its pid. It may not answer for a moment."""
    text = render(programs, socket_path=socket_path, directory=directory, logs=logs)
    write_atomic(config, text, 0o600)
    with (logs / "supervisord.out.log").open("ab") as out:
        child = subprocess.Popen(
            (sys.executable, "-P", "-W", "ignore", "-m", "fleet.supervisord_main", "-n", "-s", "-c", str(config)),
            env=environment(fleet_id),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    child.returncode = 0  # it outlives us on purpose: keep Popen from warning about that
    return child.pid


# -- its XML-RPC --


class Supervisor:
    """Its methods raise SupervisorTrouble, also where it refuses, with its words."""

    def __init__(self, socket_path: Path, deadline: float = supervisord.DEADLINE) -> None:
        self._path = socket_path
        self._deadline = deadline

    def _call(self, method: str, *arguments: object, fine: int | None = None) -> Any:
        try:
            return supervisord.call(self._path, method, *arguments, deadline=self._deadline)
        except supervisord.Refused as e:
            if e.code == fine:
                return None
            raise SupervisorTrouble(f"supervisord refused {method}: {e}") from e
        except supervisord.Unanswered as e:
            raise SupervisorTrouble(f"the fleet's supervisord does not answer: {e}") from e

    def programs(self) -> dict[str, Info]:
        answer = self._call("getAllProcessInfo")
        return {i["name"]: Info(i["name"], i["statename"], i["pid"], i["spawnerr"] or i["description"]) for i in answer}

    def start(self, name: str) -> None:
        """Begins; does not wait. No error where it runs already."""
        self._call("startProcess", name, False, fine=_ALREADY_STARTED)

    def stop(self, name: str) -> None:
        """Begins; does not wait. No error where it does not run."""
        self._call("stopProcess", name, False, fine=_NOT_RUNNING)

    def shutdown(self) -> None:
        """Begins; it stops what still runs first."""
        self._call("shutdown")
