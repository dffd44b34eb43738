"""A fleet of thin edges and hosts around real controllers, all on a real ZooKeeper."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from barrier import api, auth, service
from barrier.context import Api
from barrier.controller import Controller
from barrier.hub import Hub
from barrier.metrics import Metrics
from barrier.store import Store, rollouts, services
from barrier.store.audit import By
from fleet import loop, paths
from fleet.access import ROLES, Role, issue
from fleet.loop import Wake
from fleet.model import Rollout, ServiceConfig
from fleet.zk import ZooKeeper
from tests.barrier.fleet import Connect, Edge, Host, Thread
from tests.barrier.http import DIGEST, TOKENS, Http, Published, write_tokens
from tests.conftest import eventually

T = TypeVar("T", bound=Thread)

#: Every test runs on a ZooKeeper that is locked: what a part may not do shows.
ACCESS = issue({role: f"{role}-secret-of-the-tests" for role in ROLES})

ANN = By("ann", "admin", "a test")


class Replica:
    """One controller in a thread."""

    def __init__(self, connect: Connect, name: str) -> None:
        self.name = name
        self.wake = Wake()
        self.zk = connect(self.wake)
        self.controller = Controller(self.zk, name, Metrics(), self.wake)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.crash: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            loop.run(self.controller, self.wake, every=0.5, backoff=0.05)
        except BaseException as e:
            self.crash = e
            raise

    def kill(self) -> None:
        """Gone from one moment to the next; its session ends with it."""
        self.wake.stop()
        self._thread.join(10)
        self.zk.close()


class Fleet:
    """What a test plays with. The service is called ``shop``."""

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.store = Store(connect())
        for path in paths.TOP:  # as the first leader does
            self.store.zk.ensure(path)
        self.threads: list[Thread] = []
        self.replicas: list[Replica] = []

    def configure(self, **fields: object) -> None:
        config = ServiceConfig.model_validate({"stall_seconds": 0.3, "waves": {"concurrency": 1}} | fields)
        services.configure(self.store, "shop", config, ANN)

    def edge(self, name: str, **fields: object) -> Edge:
        edge = Edge(self._as("edge"), name)
        return self._start(edge, fields)

    def host(self, name: str, *, slots: int = 2, **fields: object) -> Host:
        host = Host(self._as("host"), name, slots=slots)
        return self._start(host, fields)

    def _as(self, role: Role) -> Connect:
        return functools.partial(self.connect, access=ACCESS[role])

    def _start(self, thread: T, fields: dict[str, object]) -> T:
        for key, value in fields.items():
            setattr(thread, key, value)
        self.threads.append(thread)
        thread.start()
        return thread

    def replica(self, name: str = "barrier-1") -> Replica:
        replica = Replica(self.connect, name)
        self.replicas.append(replica)
        return replica

    @staticmethod
    def wanted(build: str, **fields: object) -> Rollout:
        asked = {"number": 1, "service": "shop", "build": build, "digest": DIGEST, "by": "ann"}
        return Rollout.model_validate(asked | fields)

    def begin(self, build: str, **fields: object) -> Rollout:
        rollout, _ = rollouts.begin(self.store, self.wanted(build, **fields), ANN)
        return rollout

    def ask(self, number: int, verb: str) -> None:
        rollouts.ask(self.store, "shop", number, verb, ANN)  # type: ignore[arg-type]

    def get(self, number: int) -> Rollout:
        rollout = self.store.rollout("shop", number)
        assert rollout is not None
        return rollout

    def until(self, number: int, state: str, *, done: bool = False) -> Rollout:
        def there() -> bool:
            for replica in self.replicas:
                assert replica.crash is None, replica.crash
            now = self.get(number)
            return now.state == state and now.done == done and now.request is None

        try:
            eventually(f"rollout {number} to be {state}", there)
        except pytest.fail.Exception as e:
            pytest.fail(f"{e}\n{self.get(number).model_dump_json(indent=1)}\n{self.store.plan('shop')}")
        return self.get(number)

    def deploy(self, build: str, **fields: object) -> Rollout:
        return self.until(self.begin(build, **fields).number, "switched", done=True)

    def close(self) -> None:
        for thread in self.threads:
            thread.stop()
        for replica in self.replicas:
            replica.kill()


@pytest.fixture
def connect(connect: Connect) -> Connect:
    """Sessions of the barrier service, unless ``access`` says otherwise."""
    return functools.partial(connect, access=ACCESS["barrier"])


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    write_tokens(path, TOKENS)
    return path


class Serve(Protocol):
    def __call__(self, change: Callable[[Api], Api] = lambda api: api, *, ready: bool = True) -> Http: ...


@pytest.fixture
def serve(connect: Callable[..., ZooKeeper], tokens: Path) -> Iterator[Serve]:
    """The API on a port of its own; ``change`` makes another one of it."""
    with contextlib.ExitStack() as stack:

        def start(change: Callable[[Api], Api] = lambda api: api, *, ready: bool = True) -> Http:
            hub = Hub()
            context = change(Api(Store(connect(hub)), auth.Tokens(tokens), Published(), Metrics(), hub))
            sock = socket.socket()
            stack.callback(sock.close)
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            server = service._Server(api.create(context), sock, Wake())
            server.start()
            stack.callback(server.stop)
            made = Http(f"http://127.0.0.1:{sock.getsockname()[1]}")
            stack.callback(made.close)
            if ready:
                eventually("the API to answer", lambda: made("GET", "/healthz").status_code == 200)
            return made

        yield start


@pytest.fixture
def http(serve: Serve) -> Http:
    return serve()


@pytest.fixture
def fleet(connect: Callable[..., ZooKeeper]) -> Iterator[Fleet]:
    made = Fleet(connect)
    yield made
    made.close()


@pytest.fixture
def small(fleet: Fleet) -> Fleet:
    """Two edges, three hosts, one controller, a configured service."""
    fleet.configure()
    for name in ("edge-1", "edge-2"):
        fleet.edge(name)
    for name in ("host-1", "host-2", "host-3"):
        fleet.host(name)
    fleet.replica()
    return fleet
