"""What every test may lean on: a real ZooKeeper (one a session, a fresh chroot a test) and bounded waiting."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from fleet.zk import ZooKeeper
from pinrail.local import zookeeper
from pinrail.local.ports import free_port

pytest_plugins = ["tests.s3_fixtures"]

_chroots = itertools.count(1)

# How long an example takes says more about the machine than about the code. In CI the same examples every time.
_ci = bool(os.environ.get("CI"))
settings.register_profile("pinrail", deadline=None, derandomize=_ci, database=None, print_blob=True)
settings.load_profile("pinrail")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files whose tests may take longest are begun first: no worker is left alone with one of them at the end."""
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), mark.args[0] if mark else 0.0)
    items.sort(key=lambda item: -longest[item.path])


def eventually(what: str, check: Callable[[], object], seconds: float = 30.0) -> None:
    """Poll ``check`` until it is true; fail with ``what`` and its last value after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (last := check()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what} (last: {last!r})")
        time.sleep(0.02)


class ZooKeeperServer:
    """The server process: ``stop`` and ``start`` keep its data and its port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.log = directory / "log"
        self._argv = zookeeper.prepare(directory, "127.0.0.1", self.port)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(f"ZooKeeper on {self.port}; see {self.log}", self._answers, 30)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.sendall(b"ruok")
                return s.recv(4) == b"imok"
        except OSError:
            return False


@pytest.fixture(scope="session")
def zookeeper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    yield server
    server.stop()


@pytest.fixture
def zk_address(zookeeper_server: ZooKeeperServer) -> str:
    """``host:port/chroot``, a chroot that no other test uses."""
    return f"127.0.0.1:{zookeeper_server.port}/t{next(_chroots)}"


@pytest.fixture
def connect(zk_address: str) -> Iterator[Callable[..., ZooKeeper]]:
    """Makes sessions below this test's chroot; they are closed at its end."""
    made: list[ZooKeeper] = []

    def make(wake: Callable[..., None] = lambda *_: None, **kwargs: Any) -> ZooKeeper:
        zk = ZooKeeper(zk_address, wake=wake, **{"deadline": 20.0, **kwargs})
        zk.start()
        made.append(zk)
        return zk

    yield make
    for zk in made:
        zk.close()


@pytest.fixture
def zk(connect: Callable[..., ZooKeeper]) -> ZooKeeper:
    return connect()
