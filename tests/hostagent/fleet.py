"""A real host in a test: supervisord, the agent as a process, an S3 with builds, and the leader's hand on ZooKeeper."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from fleet import paths
from fleet.config import S3Config
from fleet.model import (
    Enabled,
    EnabledBuild,
    Health,
    HostStatus,
    Manifest,
    Member,
    Pool,
    ServiceConfig,
    Slot,
    Turn,
    decode,
)
from fleet.s3 import ObjectStore, archive_key, manifest_key
from fleet.zk import ZooKeeper
from hostagent.failpoint import VARIABLE
from hostagent.supervisor import Process, Supervisor, SupervisorTrouble
from pinrail.local.ports import free_port
from tests.conftest import eventually

#: A small service on the standard library: what a build holds.
SERVE = """
import http.server, json, os, socketserver, sys, time
MODE = open("mode").read().strip()
if MODE == "exits":
    sys.exit("the build is broken: exits")
if MODE == "stubborn":
    import signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"])  # which ignores it, too
if MODE == "deaf":
    time.sleep(600)
if MODE == "thief":  # the port of the slot's own nginx, before that has it
    import socket
    at, _, port = os.environ["STEAL"].rpartition(":")
    thief = socket.create_server((at, int(port)), reuse_port=True)
if MODE == "forks":
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
BUILD = os.environ["PINRAIL_VERSION"]
ASKED = []  # what this process was asked for first

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return "local"
    def log_message(self, *a): pass
    def do_GET(self):
        ASKED[:] = [*ASKED, self.path][:10]
        if self.path == "/healthz" and MODE == "sick":
            return self.say(503, {"build": BUILD})
        if self.path == "/healthz" and MODE == "liar":
            return self.say(200, {"build": "another"})
        if self.path == "/loud":
            print("loud " * 20000, flush=True)
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.partition("=")[2]))
        self.say(200, {"build": BUILD, "pid": os.getpid(), "asked": ASKED, "slot": os.environ["PINRAIL_SLOT"],
                       "env": os.environ.get("GREETING"),
                       "uid": os.getuid(), "leak": os.environ.get("LEAK"), "host": os.environ["PINRAIL_HOST"]})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/die":
            with open(os.environ["DIARY"], "a") as diary: diary.write(self.command + " ")
            os._exit(1)
        self.say(200, {"build": BUILD, "bytes": len(body)})
    do_PUT = do_DELETE = do_POST
    def say(self, status, what):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Served-Version", "what the application says")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

if "SOCKET" in os.environ:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads, request_queue_size = True, 128
    server = Server(os.environ["SOCKET"], Handler)
else:
    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads, request_queue_size, allow_reuse_address = True, 128, True
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
"""
_COMMAND = "import typer; from pinrail.commands import host; app = typer.Typer(); host.add_to(app); app()"


def archive(files: Mapping[str, str | bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return zstandard.compress(raw.getvalue())


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Load:
    """Requests against one port, on kept connections, until told to stop; counts what failed."""

    endpoint: str
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(m,)) for m in ("GET", "POST")]
        for t in self._threads:
            t.start()
        return self

    def _run(self, method: str) -> None:
        c = http.client.HTTPConnection(self.endpoint, timeout=10)
        while not self._stop.wait(0.005):
            try:
                c.request(method, "/x", body=b"12345" if method == "POST" else None)
                r = c.getresponse()
                said = json.loads(r.read())
                if r.status != 200 or r.headers["x-served-version"] != said["build"]:
                    self.failures.append(f"{method} {r.status} {dict(r.headers)}")
                self.answers.append(said["build"])
            except (OSError, http.client.HTTPException, ValueError) as e:
                self.failures.append(f"{method} {e!r}")
                c.close()
        c.close()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for t in self._threads:
            t.join(15)


class Machine:
    """One host's two processes, which any number of services share."""

    def __init__(
        self,
        directory: Path,
        zk: ZooKeeper,
        s3: S3Config,
        *,
        address: str,
        directory_key: str = "",
        user: str | None = None,
        name: str = "host-1",
        keys: str = "",
    ) -> None:
        """``keys``: more lines of the host's file."""
        self.name = name
        self.user = user
        self.python = sys.executable
        self.environment = {**os.environ, "LEAK": "a secret of the host's"}
        self.directory = directory
        self.address = address
        self.zk = zk
        self.store = ObjectStore(s3)
        self.metrics = f"{address}:{free_port(address)}"
        directory.mkdir(exist_ok=True)
        (directory / "host.toml").write_text(
            f'name = "{self.name}"\naddress = "{address}"\nzookeeper = "{zk.address}"\n'
            f'directory = "{directory_key or directory}"\nmetrics = "{self.metrics}"\nnginx_user = "www-data"\n'
            # Services run as users of their own, and this test's Python may lie where only root can read.
            f'path = ["/usr/bin"]\n'
            f"every = 0.5\nsession_seconds = 2\n{keys}\n"
            f'[s3]\nendpoint = "{s3.endpoint}"\nbucket = "{s3.bucket}"\ncredentials = "{s3.credentials}"\n'
            f"stall_seconds = {s3.stall_seconds}\n"
        )
        self.supervisor = Supervisor(directory / "run" / "supervisor.sock")
        self.agent: subprocess.Popen[bytes] | None = None
        self.server: subprocess.Popen[bytes] | None = None

    def run(self, what: str, failpoint: str = "", before: str = "") -> subprocess.Popen[bytes]:
        """``pinrail host run`` or ``server``. ``before``: Python that the process runs first."""
        argv = [self.python, "-c", f"{before}\n{_COMMAND}", "host", what, "--config", str(self.directory / "host.toml")]
        with (self.directory / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self.user,
                env={**self.environment, VARIABLE: failpoint},
            )

    def ensure(self) -> None:
        """Both run, whatever the test before did to them."""
        if self.server is None or self.server.poll() is not None:
            self.start_server()
        if self.agent is None or self.agent.poll() is not None:
            self.start_agent()

    def start_server(self) -> None:
        self.server = self.run("server")
        eventually("supervisord answers", self._server_answers, 20)

    def _server_answers(self) -> bool:
        try:
            return self.supervisor.pid() > 0
        except SupervisorTrouble:
            return False

    def start_agent(self, failpoint: str = "", before: str = "") -> None:
        """``failpoint``: where it is to die."""
        self.agent = self.run("run", failpoint, before)

    def kill_agent(self) -> None:
        assert self.agent
        self.agent.kill()
        self.agent.wait(10)

    def stop(self) -> None:
        for process in (self.agent, self.server):
            if process:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)

    def log(self) -> str:
        return (self.directory / "run.log").read_text()


class Host:
    """One service on the machine, and what the leader would do to it."""

    def __init__(self, machine: Machine, service: str) -> None:
        self.machine = machine
        self.service = service
        self.name = machine.name
        self.address = machine.address
        self.zk = machine.zk
        self.store = machine.store
        self.supervisor = machine.supervisor
        self.digests: dict[str, str] = {}
        self.serial = 0
        self.ports = (free_port(self.address), free_port(self.address))
        self.config = ServiceConfig(
            ports=self.ports,
            pool=Pool(processes=2, start_seconds=6, stop_seconds=3),
            health=Health(interval=0.2),
            response_seconds=5,
        )

    @property
    def releases(self) -> Path:
        return self.machine.directory / "releases" / self.service

    @property
    def archives(self) -> Path:
        return self.machine.directory / "archives" / self.service

    def venvs(self) -> list[Path]:
        """Of all services of the machine."""
        return [p for p in (self.machine.directory / "venvs").glob("[!.]*") if p.is_dir()]

    def conf(self) -> list[Path]:
        return list((self.machine.directory / "conf.d").glob(f"{self.service}-*"))

    # -- the leader's hand --

    def configure(self, config: ServiceConfig | None = None) -> None:
        self.config = config or self.config
        self._put(paths.config(self.service), self.config.encode())

    def _put(self, path: str, data: bytes) -> None:
        node = self.zk.get(path, watch=False)
        if node is None:
            self.zk.create(path, data)
        else:
            self.zk.set(path, data, node.version)

    def publish(self, build: str, mode: str = "ok", *, extra: Mapping[str, str | bytes] | None = None) -> str:
        data = archive({"serve.py": SERVE, "mode": mode, **(extra or {})})
        self.digests[build] = digest_of(data)
        unpacked = 10**7 + sum(map(len, (extra or {}).values()))
        manifest = Manifest(
            service=self.service, build=build, digest=self.digests[build], size=len(data), unpacked=unpacked, files=10
        )
        self.store.put_new(archive_key(self.service, build), data, "application/zstd")
        self.store.put_new(manifest_key(self.service, build), manifest.encode(), "application/json")
        return self.digests[build]

    def enable(self, serial: int, *builds: str, turn: bool = True, role: str = "default") -> None:
        self.serial = serial
        enabled = tuple(EnabledBuild(build=b, digest=self.digests[b]) for b in builds)
        self._put(paths.enabled(self.service, role), Enabled(serial=serial, builds=enabled).encode())
        if turn:
            self.turn(serial)

    def remove(self) -> None:
        self._put(paths.removed(self.service), b"")

    def turn(self, serial: int) -> None:
        self._put(paths.turn(self.service, self.name), Turn(serial=serial).encode())

    # -- what can be seen --

    def status(self) -> HostStatus | None:
        node = self.zk.get(paths.host(self.service, self.name), watch=False)
        return decode(HostStatus, node.data) if node else None

    def slot(self, index: int) -> Slot | None:
        status = self.status()
        return status.slots[index] if status and len(status.slots) > index else None

    def member(self, build: str) -> Member | None:
        for endpoint in self.zk.children(paths.serverset(self.service, build), watch=False):
            node = self.zk.get(paths.member(self.service, build, endpoint), watch=False)
            if node and (found := decode(Member, node.data)) and found.name == self.name:
                return found
        return None

    def reached(self, serial: int, seconds: float = 25) -> None:
        eventually(
            f"serial {serial} reached; see {self.machine.directory}/run.log",
            lambda: (s := self.status()) and s.serial == serial and s.error is None,
            seconds,
        )

    def failed(self, serial: int, words: str, seconds: float = 25) -> HostStatus:
        eventually(
            f"an error that says {words!r}; see {self.machine.directory}/run.log",
            lambda: (s := self.status()) and s.failed_serial == serial and s.error and words in s.error,
            seconds,
        )
        found = self.status()
        assert found
        return found

    def tell(self) -> None:
        """What the host knows, for the report of a test that failed."""
        said = [str(self.status()), *(line for line in self.machine.log().splitlines() if self.service in line)]
        for log in (self.machine.directory / "log").glob(f"{self.service}-*.log"):
            said += [f"{log.name}:", log.read_text()[-2000:]]
        sys.stdout.write("\n".join(said))

    def endpoint(self, slot: int) -> str:
        return f"{self.address}:{self.ports[slot]}"

    def ask(
        self, slot: int, path: str = "/x", *, method: str = "GET", body: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        c = http.client.HTTPConnection(self.endpoint(slot), timeout=10)
        try:
            c.request(method, path, body=body)
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def running(self) -> list[Process]:
        return [p for p in self.supervisor.processes() if p.group[:-1].startswith(f"{self.service}-")]

    def processes(self, build: str) -> dict[str, Process]:
        return {p.name.rpartition(".")[2]: p for p in self.running() if p.group.endswith(f"@{build}")}

    def pids(self, build: str) -> dict[str, int]:
        return {name: p.pid for name, p in self.processes(build).items()}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def pause(seconds: float) -> None:
    """Only where the test is that nothing happens meanwhile."""
    time.sleep(seconds)
