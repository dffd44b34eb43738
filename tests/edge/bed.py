"""A real edge on loopback, varnishd or nginx and the agent as their own processes; the world around it; its clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge import server
from edge.config import EdgeConfig, NginxConfig, VarnishConfig, each
from edge.look import Look
from edge.varnish import Varnish
from fleet import paths
from fleet.files import write_atomic
from fleet.model import Ack, Health, Plan, ServiceConfig, decode
from fleet.zk import ZooKeeper
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.edge.backend import Backend

#: The drain deadline is never less than the response's.
CONFIG = ServiceConfig(health=Health(interval=0.2), response_seconds=20, drain_seconds=1)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str] = field(default_factory=list)

    @property
    def version(self) -> str | None:
        return self.headers.get("x-deployment-id")

    @property
    def build(self) -> str:
        return str(json.loads(self.body)["build"])


def ask(listen: str, path: str = "/", *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own. Header names are written with ``_`` for ``-``."""
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        headers = {k.lower(): v for k, v in answer.getheaders()}
        return Answer(answer.status, headers, answer.read(), answer.headers.get_all("Set-Cookie") or [])
    finally:
        connection.close()


@dataclass
class Edge:
    """An edge's two processes, started and killed by the tests; its directory outlives both."""

    config: EdgeConfig
    file: Path
    zk: ZooKeeper
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def listen(self) -> str:
        """The first of its addresses for requests."""
        return each(self.config.varnish.listen)[0] if self.config.engine == "varnish" else self.config.nginx.listen

    def start(self, *which: str) -> None:
        for name in which or ("server", "run"):
            with (self.config.directory.parent / f"{name}.log").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.edge.launch", name, str(self.file)], stdout=out, stderr=out
                )

    def supervised(self) -> bool:
        """Start the server again where it has ended by itself, as what it runs under would. Says True."""
        if "server" in self.processes and self.processes["server"].poll() is not None:
            self.start("server")
        return True

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # in the middle of something long
            process.kill()
            process.wait(15)

    def close(self) -> None:
        for name in list(self.processes):
            with contextlib.suppress(ProcessLookupError):
                self.kill(name, signal.SIGTERM)

    def log(self, name: str = "run") -> str:
        return (self.config.directory.parent / f"{name}.log").read_text()

    def child_of(self, name: str, program: str) -> int | None:
        """The process id of ``program``, started by one of ours."""
        parent = self.processes[name].pid
        for task in Path(f"/proc/{parent}/task").iterdir():
            for pid in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                        return int(pid)
        return None

    # -- what a user or a barrier would see --

    def ask(self, path: str = "/", **kwargs: object) -> Answer:
        return ask(self.listen, path, **kwargs)  # type: ignore[arg-type]

    def health(self) -> int:
        try:
            return self.ask("/.pinrail/health").status
        except OSError:
            return 0

    def page(self) -> str:
        """What its health page says."""
        try:
            return self.ask("/.pinrail/health").body.decode()
        except OSError:
            return ""

    def ack(self, service: str = "app") -> Ack:
        node = self.zk.get(paths.ack(service, self.config.name), watch=False)
        return decode(Ack, node.data if node else None) or Ack(incarnation="")

    def acked(self, epoch: int, service: str = "app") -> bool:
        ack = self.ack(service)
        return ack.applied == epoch and ack.staged == epoch

    def look(self) -> Look:
        with contextlib.closing(Varnish(self.config.varnish.admin, server.secret_file(self.config))) as varnish:
            return varnish.look()

    def configure(self, **changes: object) -> None:
        """Change the edge's own file; for processes that are started after this."""
        self.config = EdgeConfig.model_validate({**self.config.model_dump(), **changes})
        self.file.write_text(self.config.model_dump_json())

    def own(self, text: str | bytes, service: str = "app") -> None:
        """Put an operator's own VCL in place."""
        directory = self.config.varnish.own
        assert directory
        write_atomic(directory / f"{service}.vcl", text)

    def set_parameter(self, name: str, value: str) -> None:
        secret = str(server.secret_file(self.config))
        argv = ["varnishadm", "-T", self.config.varnish.admin, "-S", secret, "param.set", name, f'"{value}"']
        subprocess.run(argv, check=True, capture_output=True, timeout=20)

    def metrics(self) -> dict[str, float]:
        text = ask(self.config.metrics, "/metrics").body.decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


@dataclass
class World:
    """ZooKeeper as the barrier and the hosts would fill it."""

    zk: ZooKeeper
    backends: list[Backend] = field(default_factory=list)

    def configure(self, service: str = "app", config: ServiceConfig = CONFIG) -> None:
        self._put(paths.config(service), config.encode())

    def plan(self, plan: Plan, service: str = "app") -> None:
        self._put(paths.plan(service), plan.encode())

    def host(self, version: str, service: str = "app", **kwargs: str) -> Backend:
        backend = Backend(version, **kwargs)
        self.backends.append(backend)
        self.register(backend, service)
        return backend

    def register(self, backend: Backend, service: str = "app") -> None:
        self.zk.create(paths.member(service, backend.version, backend.endpoint), backend.member().encode())

    def leave(self, backend: Backend, service: str = "app") -> None:
        self.zk.delete(paths.member(service, backend.version, backend.endpoint))

    def _put(self, path: str, data: bytes) -> None:
        node = self.zk.get(path, watch=False)
        if node is None:
            self.zk.create(path, data)
        else:
            self.zk.set(path, data, node.version)

    def close(self) -> None:
        for backend in self.backends:
            backend.close()


def make_edge(directory: Path, zk_address: str, zk: ZooKeeper, name: str = "edge-1", **varnish: Any) -> Edge:
    """An edge in ``directory``, not started. The operator's own VCL is looked for in ``directory/own``."""
    (directory / "own").mkdir(parents=True, exist_ok=True)
    defaults: dict[str, Any] = {"jail": "none", "storage": "malloc,16m", "own": directory / "own"}
    given = {**_ports(), **defaults, **varnish}
    return _edge(directory, zk, zk_address, name=name, varnish=VarnishConfig(**given))


def make_nginx_edge(directory: Path, zk_address: str, zk: ZooKeeper) -> Edge:
    """The same on nginx."""
    nginx = NginxConfig(user="root", workers=2, close_seconds=1.0, **_ports())
    return _edge(directory, zk, zk_address, name="edge-1", engine="nginx", nginx=nginx)


def _ports() -> dict[str, Any]:
    return {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}


def _edge(directory: Path, zk: ZooKeeper, zk_address: str, **config: Any) -> Edge:
    state, metrics = directory / "state", f"127.0.0.1:{free_port()}"
    made = EdgeConfig(zookeeper=zk_address, directory=state, metrics=metrics, every=0.5, session_seconds=4, **config)
    file = directory / "edge.json"
    file.write_text(made.model_dump_json())
    state.mkdir(parents=True, exist_ok=True)
    return Edge(made, file, zk)


@contextlib.contextmanager
def slow_request(edge: Edge, backend: Backend, **headers: str) -> Iterator[list[Answer]]:
    """A request that hangs at ``backend`` while the body runs; its answer is in the list afterwards."""
    answers: list[Answer] = []
    backend.release.clear()
    backend.slow_began.clear()

    def run() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # a test may take the edge away
            answers.append(edge.ask("/slow", **headers))

    thread = threading.Thread(target=run)
    thread.start()
    eventually("the slow request reaches its host", backend.slow_began.is_set)
    try:
        yield answers
    finally:
        backend.release.set()
        thread.join(20)


class WebSocket:
    """A pipe through ``edge`` to whichever host answers; what is said comes back."""

    def __init__(self, edge: Edge, pin: str) -> None:
        host, _, port = edge.listen.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), 30)
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"x-deployment-id: {pin}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            got = self._socket.recv(1)
            assert got, f"closed after {head!r}"
            head += got
        assert head.startswith(b"HTTP/1.1 101")

    def echoes(self) -> bool:
        try:
            self._socket.sendall(b"hello")
            return self._socket.recv(5) == b"hello"
        except OSError:
            return False

    def ended(self) -> bool:
        """Has the other side ended it? Waits for it, bounded."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._socket.close()


class Load:
    """Keeps asking in the background: who answered is in ``versions``, wrong answers in ``wrong``, requests that got
    none in ``lost``."""

    def __init__(
        self, edge: Edge, wanted: Callable[[Answer], bool] = lambda a: a.status == 200, **headers: str
    ) -> None:
        self._edge, self._wanted, self._headers = edge, wanted, headers
        self._stop = threading.Event()
        self.wrong: list[Answer] = []
        self.lost: list[str] = []
        self.versions: list[str] = []
        self._thread = threading.Thread(target=self._run)

    @property
    def bad(self) -> list[object]:
        return [*self.wrong, *self.lost]

    def flows(self, more: int = 20) -> None:
        """Until so many more requests have been answered."""
        before = len(self.versions)
        eventually("requests are answered", lambda: len(self.versions) >= before + more)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._edge.ask("/api", **self._headers)
            except (OSError, http.client.HTTPException) as e:
                self.lost.append(repr(e))
                continue
            if not self._wanted(answer):
                self.wrong.append(answer)
            self.versions.append(answer.version or "")
            time.sleep(0.002)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def kill_pid(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
