"""How an nginx edge finds out who is well: real answers of real hosts."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.nginx.probes import Health, Probes, Target
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.edge.backend import Backend


@pytest.mark.parametrize(("trusted", "found"), [(True, [True, False]), (False, [False])])
def test_one_bad_answer_takes_away_no_host_that_served_before(trusted: bool, found: list[bool]) -> None:
    with contextlib.closing(Backend("A")) as backend:
        backend.sick = True
        target = Target("app", "A", "127.0.0.1", backend.port, "/healthz", 0.05, 5.0)
        seen: list[bool] = []
        probes = Probes(lambda: seen.append(probes.health()[target] is Health.WELL))
        probes.start()
        try:
            probes.ask([target], [target] if trusted else [])
            eventually("it is sick", lambda: seen[-1:] == [False])
            assert seen == found
            backend.sick = False
            eventually("it is well again", lambda: seen[-1])
        finally:
            probes.stop()


@contextlib.contextmanager
def hosts(directory: Path, port: int) -> Iterator[None]:
    """A process that answers for version A at each address of 127/8."""
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;\n"
        "events { worker_connections 4096; }\nhttp { access_log off;\n"
        f"server {{ listen 0.0.0.0:{port} backlog=4096;\n"
        "location / { add_header x-served-version A; return 200; } } }\n"
    )
    argv = ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as child:
        try:
            eventually("they listen", (directory / "pid").exists)
            yield
        finally:
            child.terminate()


def test_an_edge_that_is_too_busy_to_listen_takes_no_host_for_sick(tmp_path: Path) -> None:
    port, idle = free_port(), threading.Event()
    targets = [Target("app", "A", f"127.0.{n // 100}.{n % 100 + 1}", port, "/", 0.5, 0.5) for n in range(200)]

    def busy() -> None:
        while not idle.is_set():
            pass

    seen: set[Health] = set()
    probes = Probes(lambda: seen.update(probes.health().values()))
    with hosts(tmp_path, port):
        other = threading.Thread(target=busy)
        other.start()
        probes.start()
        try:
            probes.ask(targets)
            eventually("all are well", lambda: len(probes.health()) == len(targets), 60)
        finally:
            idle.set()
            other.join()
            probes.stop()
    assert seen == {Health.WELL}


def test_a_host_that_is_silent_is_sick_once_another_one_is_heard() -> None:
    with contextlib.closing(Backend("A")) as backend, contextlib.closing(Backend("A")) as other:
        backend.hangs.set()
        silent = Target("app", "A", "127.0.0.1", backend.port, "/healthz", 0.05, 0.2)
        well = Target("app", "A", "127.0.0.1", other.port, "/healthz", 0.05, 5.0)
        refuses = Target("app", "A", "127.0.0.1", free_port(), "/healthz", 0.05, 5.0)
        probes = Probes(lambda: None)
        probes.start()
        try:
            probes.ask([silent])
            eventually("nothing is heard", lambda: probes.health() == {silent: Health.SILENT})
            probes.ask([silent, refuses])
            eventually("a refusal is heard", lambda: probes.health() == {silent: Health.SICK, refuses: Health.SICK})
            backend.hangs.clear()
            probes.ask([silent, well])
            eventually("both are well", lambda: probes.health() == {silent: Health.WELL, well: Health.WELL})
            backend.hangs.set()
            eventually("it is sick at once", lambda: probes.health() == {silent: Health.SICK, well: Health.WELL})
        finally:
            backend.hangs.clear()
            probes.stop()
