"""Services that no edge stands before, in Java and in Python, deployed by one command: one slot on each host, restarted
a wave at a time.

Their clients do as Finagle's do: they follow the server sets, and keep their connections.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet import paths
from fleet.model import Member, decode
from fleet.zk import ZooKeeper
from pinrail.local import state
from pinrail.local.state import FleetState
from tests.conftest import eventually
from tests.local.conftest import left_of, run

pytestmark = pytest.mark.timeout(300)
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
HOSTS = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetState]:
    directory = tmp_path_factory.mktemp("inplace") / "fleet"
    up = run("up", "--bare", "--edges", 1, "--hosts", HOSTS, "--dir", directory, seconds=300)
    assert up.returncode == 0, up.stderr
    found = state.load(directory)
    assert found is not None
    yield found
    assert run("down", "--dir", directory, seconds=120).returncode == 0
    assert left_of(directory) == []


@pytest.fixture(scope="module")
def zk(fleet: FleetState) -> Iterator[ZooKeeper]:
    zk = ZooKeeper(fleet.zookeeper.connect, wake=lambda *_: None)
    zk.start()
    yield zk
    zk.close()


@dataclass
class Service:
    """One of the samples, on the fleet."""

    name: str
    fleet: FleetState
    port: int
    directory: Path

    def command(self, *words: object, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        return run(*words, "--dir", self.fleet.directory, seconds=seconds)

    def configure(self, concurrency: int) -> None:
        raw: dict[str, Any] = tomllib.loads((SAMPLES / self.name / "service.toml").read_text())
        raw |= {"ports": [self.port], "waves": {"concurrency": concurrency}}
        raw["health"]["interval"] = 0.2  # a host is quiet before it restarts for as long as somebody may still probe it
        file = self.directory / "service.json"
        file.write_text(json.dumps(raw))
        done = self.command("config", "set", self.name, file)
        assert done.returncode == 0, done.stderr

    def publish(self, edition: str) -> None:
        tree = self.directory / edition
        if self.name == "orders":
            subprocess.run((SAMPLES / "orders" / "make_build.sh", edition, tree), check=True, timeout=60)
        else:
            tree.mkdir()
            shutil.copy(SAMPLES / self.name / "serve.py", tree)
            (tree / "edition").write_text(edition)
        done = self.command("build", "publish", tree, "--service", self.name, "--build", edition)
        assert done.returncode == 0, done.stderr

    def deploy(self, build: str) -> None:
        done = self.command("deploy", self.name, build, "--wait", "--timeout", 90, seconds=120)
        assert done.returncode == 0, done.stderr


def of(name: str, fleet: FleetState, directory: Path) -> Service:
    if name == "orders" and shutil.which("javac") is None:
        pytest.skip("javac is not installed: script/setup --tests, or apt-get install default-jdk-headless")
    return Service(name, fleet, fleet.slots["second"][name == "quotes"], directory)


@dataclass
class Clients:
    """One reads and one writes, on kept connections to whoever is in the server sets. Nothing is asked twice."""

    zk: ZooKeeper
    service: str
    #: Every state of the server sets that was seen: the build of each endpoint.
    seen: list[Mapping[str, str]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._stop = threading.Event()
        self._members = self._look()
        works = ((self._watch,), (self._ask, "GET"), (self._ask, "POST"))
        self._threads = [threading.Thread(target=do, args=args) for do, *args in works]
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for t in self._threads:
            t.join(20)

    def _look(self) -> Mapping[str, str]:
        found = {}
        for build in self.zk.children(paths.serversets(self.service), watch=False):
            for name in self.zk.children(paths.serverset(self.service, build), watch=False):
                node = self.zk.get(paths.member(self.service, build, name), watch=False)
                if node and (member := decode(Member, node.data)):
                    found[f"{member.serviceEndpoint.host}:{member.serviceEndpoint.port}"] = build
        return found

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._members = self._look()
            if not self.seen or self.seen[-1] != self._members:
                self.seen.append(self._members)

    def _ask(self, method: str) -> None:
        kept: dict[str, http.client.HTTPConnection] = {}
        turn = 0
        while not self._stop.wait(0.005):
            members = sorted(self._members)
            for left in kept.keys() - set(members):
                kept.pop(left).close()
            if not members:
                self.failures.append(f"{method}: the server sets are empty")
                continue
            turn += 1
            endpoint = members[turn % len(members)]
            connection = kept.setdefault(endpoint, http.client.HTTPConnection(endpoint, timeout=20))
            try:
                connection.request(method, f"/{self.service}", body=b"x" * 1000 if method == "POST" else None)
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if (answer.status, said["build"]) != (200, answer.headers["x-served-version"]):
                    self.failures.append(f"{method} {endpoint}: {answer.status} {said}")
                elif method == "POST" and said["bytes"] != 1000:
                    self.failures.append(f"{method} {endpoint}: {said['bytes']} bytes of 1000 arrived")
                self.answers.append(said["build"])
            except (OSError, http.client.HTTPException, ValueError) as e:
                self.failures.append(f"{method} {endpoint}: {e!r}")
                kept.pop(endpoint).close()
        for connection in kept.values():
            connection.close()

    def wait_for(self, build: str) -> None:
        eventually(f"{build} on every host", lambda: list(self.seen[-1].values()) == [build] * HOSTS)

    @property
    def fewest(self) -> int:
        return min(map(len, self.seen))


@pytest.mark.parametrize("name", ["orders", "quotes"], ids=["java", "python"])
def test_one_host_after_another_restarts_and_no_request_is_lost(
    name: str, fleet: FleetState, zk: ZooKeeper, tmp_path: Path
) -> None:
    service = of(name, fleet, tmp_path)
    service.configure(concurrency=1)
    service.publish("1")
    service.publish("2")
    service.deploy("1")
    with Clients(zk, name) as clients:
        service.deploy("2")
        clients.wait_for("2")
    assert clients.failures == []
    assert set(clients.answers) == {"1", "2"} and len(clients.answers) > 200
    assert clients.fewest == HOSTS - 1, "one at a time, and each out of the server sets while it restarts"


def test_more_restart_at_once_by_the_configuration_alone(fleet: FleetState, zk: ZooKeeper, tmp_path: Path) -> None:
    service = of("quotes", fleet, tmp_path)
    service.configure(concurrency=3)
    service.publish("3")
    service.publish("4")
    service.deploy("3")
    with Clients(zk, service.name) as clients:
        service.configure(concurrency=2)
        service.deploy("4")
        clients.wait_for("4")
    assert clients.failures == []
    assert set(clients.answers) == {"3", "4"}
    assert clients.fewest == HOSTS - 2
