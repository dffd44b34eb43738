"""A slot's own nginx: its file, its command line, its counters. Starts and stops nothing; supervisord does."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fleet.config import BadConfig
from hostagent.http import NoAnswer, get
from nginx import environment

#: An ordinary user's PATH may lack these.
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_STATUS = re.compile(
    rb"Active connections: \d+ +\nserver accepts handled requests\n \d+ \d+ (?P<requests>\d+) +\n"
    rb"Reading: (?P<reading>\d+) Writing: (?P<writing>\d+) Waiting: \d+"
)


@dataclass(frozen=True)
class Values:
    """All that the template needs."""

    service: str
    build: str
    host: str
    listen: str
    stub: str
    prefix: str
    #: ``unix:/path`` or ``host:port`` of each process.
    pool: tuple[str, ...]
    #: As whom workers run; None where nginx is started by an ordinary user, who has no choice.
    user: str | None
    response_seconds: int
    stop_seconds: int
    body_bytes: int
    workers: int
    #: Open files of a worker; a request takes up to two.
    files: int

    @property
    def connections(self) -> int:
        return min(8192, self.files // 2)


def render(values: Values) -> str:
    return environment.get_template("slot.conf.j2").render(vars(values), connections=values.connections)


def program(path: tuple[Path, ...] = ()) -> str:
    """nginx itself. Raises BadConfig where there is none."""
    places = [*map(str, path), *os.environ.get("PATH", "").split(os.pathsep), *_SBIN]
    found = shutil.which("nginx", path=os.pathsep.join(places))
    if found is None:
        raise BadConfig("nginx is not installed: apt-get install nginx")
    return found


def argv(nginx: str, prefix: Path) -> tuple[str, ...]:
    """In the foreground, for supervisord."""
    return (nginx, "-p", f"{prefix}/", "-c", str(prefix / "nginx.conf"), "-e", "stderr", "-g", "daemon off;")


@dataclass(frozen=True)
class Status:
    """What nginx does just now, without the request that asked for it."""

    #: Requests since it started.
    requests: int
    #: Being read or answered now; idle connections do not count.
    busy: int


def status(stub: str, timeout: float = 2.0) -> Status:
    """``requests`` grows by one with every call of this. Raises NoAnswer."""
    answer = get(f"unix:{stub}", "/status", timeout)
    m = _STATUS.match(answer.body)
    if answer.status != 200 or m is None:
        raise NoAnswer(f"nginx's counters cannot be read (HTTP {answer.status})")
    return Status(int(m["requests"]), int(m["reading"]) + int(m["writing"]) - 1)
