"""A real local fleet whose parts can be hurt: two edges, three hosts, two barrier replicas, three ZooKeeper servers.

Owns everything between a test and the fleet: its start and its end, killing, freezing and cutting off of parts,
rollouts that are held at a step by what holds them in life too (an open stream, a post-install, a ramp), and looking at
all that.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from fleet.loop import Trouble
from fleet.model import ServiceConfig
from fleet.s3 import ObjectStore
from fleet.zk import ZooKeeper, read_access
from pinrail.demo.check import Release
from pinrail.local import bringup, config, layout, processes, sample, tools, up
from pinrail.local.programs import Program
from pinrail.local.progress import Progress
from pinrail.local.state import FleetState
from pinrail.local.supervisord import Supervisor
from pipeline import publish
from pipeline.client import BarrierError, Client, RolloutNow
from tests.faults.clients import Clients
from tests.faults.partition import Partition
from tests.faults.rollout import SERVICE, Rollout
from tests.local.conftest import PINRAIL

if TYPE_CHECKING:
    from tests.faults.hurts import Hurt

#: Seconds after which ZooKeeper takes a silent part for dead.
SESSION = 4.0
#: Generous: how long something takes says more about the machine than about the fleet.
PATIENCE = 90.0
_GROUPS = 47001
#: The parts that live by a clock which a test can set.
CLOCKED = ("edge-1", "barrier-2")


class Fleet:
    def __init__(self, directory: Path) -> None:
        self.gate = directory.parent / "gate"
        self.clock_file = directory.parent / "clock"
        self._clock = _compile(directory.parent / "clock.so")
        self.set_clock(0)
        self.open_gate()
        self._numbers = itertools.count(1)
        #: What is being done to it, for messages; and the incarnation of the hurt edge before.
        self.step, self.said = "", None
        with pytest.MonkeyPatch.context() as patch:
            honest = config.write
            patch.setattr(config, "SESSION_SECONDS", SESSION)
            patch.setattr(config, "write", lambda fleet: [self._dressed(p) for p in honest(fleet)])
            patch.setattr(up.tools, "find", _without_prometheus(up.tools.find))
            wanted = up.Wanted(edges=2, hosts=3, barriers=2, zookeepers=3, bare=True)
            self.state: FleetState = up.up(directory, wanted, Progress())[0]
        self.supervisor = Supervisor(self.state.supervisor.socket)
        ports = [int(s.address.rpartition(":")[2]) for s in self.state.zookeeper.servers]
        self.partition = Partition(self._groups(), ports)
        self.api = Client([b.url for b in self.state.barrier], self.state.token.admin)
        self._store = ObjectStore(config.s3_config(self.state))
        self.clients: Clients | None = None
        try:
            self._first()
            self.clients = Clients({e.id: e.url for e in self.state.edges}, self.default)
            self.clients.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        try:
            if self.clients is not None:
                self.clients.stop()
        finally:
            self.partition.close()
            self.api.close()
            for name in self.supervisor.programs():
                self._signal(self.pids(name), signal.SIGCONT)
            shutil.copytree(self.state.directory / "logs", self.state.directory.parent / "logs", dirs_exist_ok=True)
            up.down(self.state.directory, keep=False)

    def mend(self) -> None:
        """Undo whatever is left of what was done to it, and take back a rollout that is left over."""
        self.open_gate()
        self.set_clock(0)
        for part, info in self.supervisor.programs().items():
            self.partition.heal(part)
            if info.stopped:
                self.start(part)
            self.thaw(part)
        for edge in self.state.edges:
            self.green(edge.id)
            self.until(f"{edge.id} is waited for", lambda e=edge.id: e in self.rostered())
            self.clients.healed(edge.id)
        left = self.until("the barrier service answers", lambda: self.api.latest(SERVICE))
        if not left.over:
            back = Release("mend", self.default, self.clients.clock(), withdrawn=(left.build,), rollback=True)
            self.clients.releases.append(back)
            self.until("it is taken back", lambda: self.api.ask(SERVICE, left.number, "abort", "mend"))
            self.until("it is over", lambda: self.look(left.number).over)
        self.until("all hosts live", lambda: len(self.hosts()) == 3)

    @contextmanager
    def at(self, step: str, hurt: Hurt, edge: str) -> Iterator[Hurt]:
        """That edge is hurt in the block."""
        self.step = f"{step}: {hurt.name}"
        self.said = self.ack(edge).get("incarnation")
        hurt.do(self, edge)
        yield hurt
        hurt.undo(self, edge)

    # -- its start --

    def _groups(self) -> Mapping[str, int]:
        names = ["edge-1", "edge-2", "host-1", "host-2", "host-3", "barrier-1", "barrier-2"]
        return {name: _GROUPS + i for i, name in enumerate(names)}

    def _dressed(self, p: Program) -> Program:
        """Under a group of its own, so that its packets can be told from others'; some with a clock to be set."""
        environment = dict(p.environment)
        if p.name in CLOCKED and self._clock is not None:
            environment |= {"LD_PRELOAD": str(self._clock), "PINRAIL_TEST_CLOCK": str(self.clock_file)}
        argv = p.argv
        if p.name in self._groups() and os.geteuid() == 0:
            argv = ("setpriv", "--regid", str(self._groups()[p.name]), "--clear-groups", "--", *argv)
        # On a busy machine a dozen interpreters that start at once take their time.
        return dataclasses.replace(p, argv=argv, environment=environment, ready_seconds=400)

    def _first(self) -> None:
        """Two versions served: the default, and one before it."""
        raw = tomllib.loads((sample.source() / "service.toml").read_text())
        raw |= {
            "ports": self.state.slots[SERVICE],
            "stall_seconds": 2,
            "waves": {"concurrency": 3},
            # An edge gives up a host that does not answer probes in time: none may seem dead on a busy machine.
            "health": raw.get("health", {}) | {"interval": 2.0, "good": 1},
        }
        # What holds a rollout while hosts install: the gate is a file that the post-install waits for.
        wait = (
            f"host=${{PWD#{self.state.directory}/data/}}; "
            f'until [ -e "{self.gate}" ] || [ -e "{self.gate}${{host%%/*}}" ]; do sleep 0.05; done'
        )
        raw["pool"] = raw.get("pool", {}) | {"install": ["sh", "-c", wait]}
        self.api.configure(SERVICE, ServiceConfig.model_validate(raw, extra="forbid").model_dump(mode="json"))
        self.until("all parts are known", lambda: len(self.rostered()) == 2 and len(self.hosts()) == 3)
        for _ in range(2):
            number = self.api.deploy(SERVICE, self.publish()).number
            self.until("the first builds are deployed", lambda n=number: self.look(n).over)
        assert len(self.plan.serving) == 2

    def publish(self) -> str:
        build = f"f{next(self._numbers):02}"
        with tempfile.TemporaryDirectory(prefix="pinrail-faults-") as directory:
            tree = sample.tree(Path(directory) / build, build)
            publish.publish(self._store, tree, SERVICE, build, key=config.signing_key(self.state))
        return build

    # -- waiting and looking --

    def until(self, what: str, check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """What ``check`` says once it is true. The barrier service may be away meanwhile; that is asked again."""
        end, last, said = time.monotonic() + seconds, None, ""
        while True:
            try:
                last, said = check(), ""
            except (Trouble, httpx.HTTPError) as e:
                said = str(e)
            except BarrierError as e:
                if e.status < 500:
                    raise
                said = str(e)
            if last and not said:
                return last
            if time.monotonic() > end:
                pytest.fail(f"[{self.step}] not within {seconds:g} s: {what} ({said or repr(last)}); {self._where()}")
            time.sleep(0.05)

    def _where(self) -> str:
        with suppress(BarrierError):
            now = self.api.latest(SERVICE)
            return f"rollout {now and (now.number, now.state.value, [str(m) for m in now.missing], now.failures)}"
        return "the barrier service does not answer"

    def look(self, number: int) -> RolloutNow:
        return self.api.rollout(SERVICE, number)

    @property
    def plan(self) -> Any:
        return self.until("the plan is known", lambda: self.api.plan(SERVICE))

    @property
    def default(self) -> str:
        return str(self.plan.default)

    def rostered(self) -> list[str]:
        """The edges that barriers wait for."""
        return [e["name"] for e in self.api.edges() if e["rostered"]]

    def hosts(self) -> dict[str, Any]:
        return {h["name"]: h["services"][SERVICE] for h in self.api.hosts() if SERVICE in h["services"]}

    def ack(self, edge: str) -> dict[str, Any]:
        """What it said last; nothing where its session is over."""
        said = {e["name"]: e["services"].get(SERVICE, {}).get("ack") for e in self.api.edges()}
        return said.get(edge) or {}

    def url(self, edge: str) -> str:
        return next(e.url for e in self.state.edges if e.id == edge)

    def ask(self, edge: str, pin: str | None = None) -> tuple[str, str]:
        """Which build that edge gives, and the status that it says."""
        headers = {"x-deployment-id": pin} if pin else {}
        answer = httpx.get(f"{self.url(edge)}/api/feed", headers=headers, timeout=20, trust_env=False)
        assert answer.status_code == 200, f"{edge}: {answer.status_code} {answer.text[:200]}"
        assert answer.json()["build"] == answer.headers["x-deployment-id"]
        return answer.headers["x-deployment-id"], answer.headers["x-deployment-status"]

    def health(self, edge: str) -> int:
        """Status of its health page; 0 where nobody answers."""
        try:
            return httpx.get(f"{self.url(edge)}/.pinrail/health", timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def green(self, edge: str) -> None:
        self.until(f"{edge}'s health page is green", lambda: self.health(edge) == 200)

    def leader(self) -> str:
        def named() -> str | None:
            leader = str(self.api.ready()["leader"])
            return leader if leader.startswith("barrier-") else None

        return str(self.until("somebody leads", named))

    def unready(self, replica: str) -> str:
        """What that replica of the barrier service says to be missing; nothing where it is ready."""
        url = next(b.url for b in self.state.barrier if b.id == replica)
        answer = httpx.get(f"{url}/readyz", timeout=20, trust_env=False)
        return "" if answer.status_code == 200 else str(answer.json()["detail"])

    def leads(self, replica: str) -> bool:
        url = next(b.url for b in self.state.barrier if b.id == replica)
        text = httpx.get(f"{url}/metrics", timeout=20, trust_env=False).text
        return "\npinrail_barrier_leading 1.0" in text

    @contextmanager
    def without(self, replica: str) -> Iterator[None]:
        """The API is asked of the other replicas only."""
        before = self.api
        self.api = Client([b.url for b in self.state.barrier if b.id != replica], self.state.token.admin)
        try:
            yield
        finally:
            self.api.close()
            self.api = before

    @contextmanager
    def zookeeper(self) -> Iterator[ZooKeeper]:
        """A session of our own, with a barrier service's rights."""
        file = layout.of(self.state).config("zookeeper-barrier.toml")
        access = read_access(file, "barrier")
        zk = ZooKeeper(self.state.zookeeper.connect, wake=lambda *_: None, access=access)
        try:
            zk.start()
            yield zk
        finally:
            zk.close()

    def zookeeper_leader(self) -> str:
        """The server that the others of the ensemble follow."""

        def found() -> str | None:
            for server in self.state.zookeeper.servers:
                host, _, port = server.address.partition(":")
                with socket.create_connection((host, int(port)), 5) as s:
                    s.sendall(b"srvr")
                    s.settimeout(5)
                    if b"Mode: leader" in b"".join(iter(lambda: s.recv(4096), b"")):
                        return server.id
            return None

        return str(self.until("one of them leads", found))

    @contextmanager
    def command(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """``pinrail WORDS`` in the background."""
        with subprocess.Popen((*PINRAIL, *words, "--dir", str(self.state.directory)), stdout=subprocess.DEVNULL) as p:
            try:
                yield p
            finally:
                p.kill()

    # -- rollouts --

    def deploy(self, *, hold: bool = False) -> Rollout:
        """Begin one. ``hold``: a ramp that stays at its first percent until it is told to go on."""
        return Rollout(self, self.publish(), hold=hold)

    def close_gate(self) -> None:
        """From now on no host gets through its post-install."""
        for gate in self.gate.parent.glob(f"{self.gate.name}*"):
            gate.unlink()

    def open_gate(self, host: str = "") -> None:
        """For that host, or for all."""
        self.gate.with_name(f"{self.gate.name}{host}").touch()

    @contextmanager
    def stream(self, edge: str, pin: str) -> Iterator[None]:
        """An answer that goes on for as long as the block does: that edge's requests to ``pin`` do not end."""
        at = urlsplit(self.url(edge))
        with socket.create_connection((at.hostname or "", at.port or 0), 20) as s:
            s.settimeout(20)
            s.sendall(
                f"GET /api/stream?ms=59000 HTTP/1.1\r\nHost: localhost\r\nx-deployment-id: {pin}\r\n\r\n".encode()
            )
            assert s.recv(12) == b"HTTP/1.1 200"
            yield

    # -- what is done to parts --

    def pids(self, part: str) -> list[int]:
        pid = self.supervisor.programs()[part].pid
        if not pid:
            return []
        return [pid, *children(pid)] if part.endswith("-server") and part.startswith("edge-") else [pid]

    def child(self, edge: str) -> int | None:
        """The process of its Varnish that answers requests."""
        return next(iter(children(self.supervisor.programs()[f"{edge}-server"].pid)), None)

    def varnishadm(self, edge: str, *order: str) -> str:
        """What its Varnish answers to an order."""
        admin = next(e.admin for e in self.state.edges if e.id == edge)
        secret = next(p for p in self.state.directory.rglob("secret") if edge in p.parts)
        argv = ["varnishadm", "-T", admin, "-S", str(secret), *order]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout

    @staticmethod
    def _signal(pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, part: str) -> None:
        """As by the kernel; whoever supervises it starts it again."""
        os.kill(self.supervisor.programs()[part].pid, signal.SIGKILL)

    def strike(self, part: str) -> None:
        """Kill it, and it stays away until ``start``. It tells nobody that it goes."""
        pid = self.supervisor.programs()[part].pid
        os.kill(pid, signal.SIGKILL)

        def stays() -> bool:
            """Asked for as often as needed: between its death and its next life supervisord knows nothing to stop."""
            self.supervisor.stop(part)
            return self.supervisor.programs()[part].state == "STOPPED"

        self.until(f"{part} is away", stays)
        assert processes.look(pid) is None

    def start(self, part: str) -> None:
        self.supervisor.start(part)
        self.until(f"{part} runs", lambda: self.supervisor.programs()[part].running)

    def freeze(self, part: str) -> None:
        self._signal(self.pids(part), signal.SIGSTOP)

    def thaw(self, part: str) -> None:
        self._signal(self.pids(part), signal.SIGCONT)

    def restart(self, part: str) -> None:
        """In order: TERM, and when it has ended another one; until that is ready."""
        bringup.stop_one(self.supervisor, part)
        self.start(part)
        self.until(f"{part} is ready", lambda: not self.unready(part))

    @property
    def has_clocks(self) -> bool:
        return self._clock is not None

    def set_clock(self, seconds: int) -> None:
        """Of the parts in CLOCKED, relative to the real one."""
        fresh = self.clock_file.with_suffix(".new")
        fresh.write_text(f"{seconds}\n")
        fresh.rename(self.clock_file)


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            if fields and int(fields[1]) == pid and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found


def _compile(to: Path) -> Path | None:
    """The clock that can be set, as a library to be preloaded; None where there is no compiler."""
    compiler = tools.find("tcc") or tools.find("gcc")
    if compiler is None:
        return None
    source = Path(__file__).with_name("clock.c")
    subprocess.run((compiler, "-shared", "-fPIC", "-o", to, source, "-ldl"), check=True, timeout=60)
    return to


def _without_prometheus(find: Callable[[str], str | None]) -> Callable[[str], str | None]:
    return lambda program: None if program == "prometheus" else find(program)
