"""The fleet's supervisord: its file, its start, and its XML-RPC on a unix socket. The only one to talk to it.

Every call has a deadline. What programs there are is decided elsewhere.
"""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.files import write_atomic
from fleet.loop import Trouble
from pinrail.local import processes, tools
from pinrail.local.programs import Program

_DEADLINE = 5.0
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
            (sys.executable, "-P", "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-s", "-c", str(config)),
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


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, deadline: float) -> None:
        super().__init__("localhost", timeout=deadline)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, deadline: float) -> None:
        super().__init__()
        self._path = path
        self._deadline = deadline

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _Connection(self._path, self._deadline)
        self._connection = (host, connection)  # what close() looks at
        return connection


class Supervisor:
    """Its methods raise SupervisorTrouble, also where it refuses, with its words."""

    def __init__(self, socket_path: Path, deadline: float = _DEADLINE) -> None:
        self._path = socket_path
        self._deadline = deadline

    def _call(self, method: str, *arguments: object) -> object:
        transport = _Transport(self._path, self._deadline)
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as e:
            raise SupervisorTrouble(f"supervisord refused {method}: {e.faultString}") from e
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as e:
            raise SupervisorTrouble(f"the fleet's supervisord does not answer at {self._path}: {e}") from e
        finally:
            transport.close()

    def programs(self) -> dict[str, Info]:
        answer: Any = self._call("getAllProcessInfo")
        return {i["name"]: Info(i["name"], i["statename"], i["pid"], i["spawnerr"] or i["description"]) for i in answer}

    def start(self, name: str) -> None:
        """Begins; does not wait. No error where it runs already."""
        self._unless("ALREADY_STARTED", "startProcess", name)

    def stop(self, name: str) -> None:
        """Begins; does not wait. No error where it does not run."""
        self._unless("NOT_RUNNING", "stopProcess", name)

    def _unless(self, fine: str, method: str, name: str) -> None:
        try:
            self._call(method, name, False)
        except SupervisorTrouble as e:
            if fine not in str(e):
                raise

    def shutdown(self) -> None:
        """Begins; it stops what still runs first."""
        self._call("shutdown")
