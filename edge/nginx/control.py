"""nginx itself, and the only module that asks it, signals it or writes what it reads.

Each call has a deadline. ``NginxTrouble`` is an nginx that is away or does not answer; whether it took what it was told
is for the caller to read back with ``look``: a reload that fails leaves the old configuration serving.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from pathlib import Path

from edge.config import EdgeConfig
from edge.nginx import orphans, render, server
from edge.nginx.look import Look, Marker, NotOurs, marker
from edge.nginx.render import Configuration
from fleet import local_http
from fleet.files import read_or_none, write_atomic
from fleet.loop import Trouble

_SECONDS = 2.0
#: Fresh connections in a row that must find the same configuration.
_AGREE = 3
_WORKER = b"nginx: worker process"
_ACTIVE = re.compile(rb"Active connections: (\d+)")


class NginxTrouble(Trouble):
    """nginx is away, or did not answer in time."""


class Nginx:
    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self._directory = server.directory(config)
        self._flags = self._directory / "flags"
        #: Whose workers those are that a master before this one left behind.
        self._orphans: tuple[int, frozenset[int]] = (0, frozenset())

    # -- what it says --

    def look(self, seconds: float = 3.0) -> Look:
        """Processes and configuration, once they agree: in the midst of a reload two may answer for a moment."""
        until = time.monotonic() + seconds
        while True:
            found = self._look()
            if found is not None:
                return found
            if time.monotonic() > until:
                raise NginxTrouble(f"nginx's workers do not agree on one configuration for {seconds:g} s")
            time.sleep(0.01)

    def _look(self) -> Look | None:
        master = self._master()
        before = self._workers(master)
        markers = [self._marker() for _ in range(_AGREE)]
        workers = self._workers(master)
        accepting = frozenset(pid for pid, leaving in workers.items() if not leaving)
        if before != workers or markers.count(markers[0]) < _AGREE or not 0 < len(accepting) <= self._most():
            return None
        leaving = (frozenset(workers) - accepting) | self._left_behind(master)
        return Look(master, _started(master), accepting, leaving, markers[0])

    def _left_behind(self, master: int) -> frozenset[int]:
        """Looked for once for each master: later none can come."""
        if self._orphans[0] != master:
            self._orphans = master, orphans.find(self._directory, master)
        alive = frozenset(pid for pid in self._orphans[1] if _WORKER in orphans.title(pid))
        self._orphans = master, alive
        return alive

    def _most(self) -> int:
        return self._config.nginx.workers or len(os.sched_getaffinity(0))

    def _master(self) -> int:
        raw = read_or_none(self._directory / "nginx.pid") or b""
        if not raw.strip().isdigit():
            raise NginxTrouble("nginx does not run: it has written no process id")
        pid = int(raw)
        title = orphans.title(pid)
        if not title.startswith(b"nginx: master process") or os.fsencode(self._directory) not in title:
            raise NginxTrouble(f"nginx does not run: process {pid} is another one or gone")
        return pid

    def _workers(self, master: int) -> dict[int, bool]:
        """Worker -> whether it only finishes what it has."""
        try:
            children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        except OSError as e:
            raise NginxTrouble(f"nginx's workers cannot be seen: {e.strerror}") from e
        titles = {int(pid): orphans.title(int(pid)) for pid in children}
        return {pid: orphans.LEAVING in title for pid, title in titles.items() if title.startswith(_WORKER)}

    def _marker(self) -> Marker:
        try:
            return marker(self._get("/marker").decode())
        except (NotOurs, UnicodeDecodeError) as e:
            raise NginxTrouble(f"what listens on {self._config.nginx.admin} is not this edge's nginx: {e}") from e

    def connections(self) -> int:
        """Those of clients: idle, or with a request that may leave them so."""
        found = _ACTIVE.search(self._get("/status"))
        if found is None:
            raise NginxTrouble("nginx's counters cannot be read")
        return int(found[1]) - 1  # without our own

    def _get(self, path: str) -> bytes:
        connection = local_http.connection(self._config.nginx.admin, _SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(1 << 20)
        except (OSError, http.client.HTTPException) as e:
            raise NginxTrouble(f"nginx at {self._config.nginx.admin} does not answer: {e or type(e).__name__}") from e
        finally:
            connection.close()
        if answer.status != 200:
            raise NginxTrouble(f"nginx at {self._config.nginx.admin} answers {path} with {answer.status}")
        return body

    # -- what it is told --

    def test(self, configuration: Configuration) -> str | None:
        """None where nginx would take it, else what it says. Touches nothing that runs."""
        candidate = self._directory / "candidate.conf"
        write_atomic(candidate, configuration.text)
        return server.test(self._config, candidate)

    def reload(self, configuration: Configuration) -> None:
        """Make it what nginx reads, and tell it to. It is in force when ``look`` says so."""
        master = self._master()
        write_atomic(server.config_file(self._config), configuration.text)
        self._signal(master, signal.SIGHUP)

    def keep(self, configuration: Configuration) -> None:
        """It serves: a start begins with it where a later one turns out not to work."""
        if read_or_none(server.last_good_file(self._config)) != configuration.text.encode():
            write_atomic(server.last_good_file(self._config), configuration.text)

    def put_back(self) -> None:
        """What nginx was told to read did not come to serve: the last good one is what it reads at its next start."""
        good = read_or_none(server.last_good_file(self._config))
        if good is not None:
            write_atomic(server.config_file(self._config), good.decode())

    def reopen_log(self) -> None:
        self._signal(self._master(), signal.SIGUSR1)

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except OSError as e:
            raise NginxTrouble(f"nginx (process {pid}) cannot be signalled: {e.strerror}") from e

    # -- files that a configuration looks at with each request --

    def flags(self) -> frozenset[str]:
        return frozenset(p.name for p in self._flags.iterdir() if not p.name.startswith("."))

    def commit(self, name: str, service: str, staged: str) -> None:
        """From the next request on the staged routing of configuration ``name`` is in force."""
        (self._flags / render.commit_flag(service, staged)).touch()
        (self._flags / render.changed_flag(name)).touch()

    def close_connections(self, name: str) -> None:
        """Answers of configuration ``name`` from now on ask the client to close its connection."""
        (self._flags / render.closing_flag(name)).touch()
        (self._flags / render.changed_flag(name)).touch()

    def remove_flag(self, name: str) -> None:
        (self._flags / name).unlink(missing_ok=True)

    def colour(self, why_red: str | None) -> None:
        """The health page."""
        if why_red is None:
            (self._flags / server.GREEN).touch()
            return
        (self._flags / server.GREEN).unlink(missing_ok=True)
        said = f"{why_red}\n".encode()
        if read_or_none(self._flags / server.RED) != said:
            write_atomic(self._flags / server.RED, said)


def _started(pid: int) -> str:
    """As the kernel counts; "" where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
