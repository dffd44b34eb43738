"""The fleet of the compose file, as the tests of faults know a fleet, and cut apart by the engine's own means.

Looking, waiting and rollouts are those of ``tests.faults.fleet``; the parts are containers, so hurting them is another
thing: a network is taken away, or the container is frozen. Users are a crowd in a container of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench import engine
from bench.engine import Project, docker
from fleet.loop import Trouble
from fleet.model import ServiceConfig
from fleet.s3 import ObjectStore
from pinrail.demo.check import Release
from pinrail.local import config, sample, state
from pipeline.client import BarrierError, Client
from tests.faults.fleet import Fleet
from tests.faults.rollout import SERVICE

GATE = "/tmp/gate"
NETWORKS = {"front": 1, "back": 2, "control": 3}
BROWSERS = 8


class Yard(Fleet):
    """Built on a project whose containers are green and in which nothing was deployed yet."""

    def __init__(self, project: Project, directory: Path) -> None:
        self.project = project
        self.net = project.environment["PINRAIL_NET"]
        self.state = self._state(directory)
        self.step, self.said = "", None
        self._numbers = itertools.count(1)
        self.api = Client([b.url for b in self.state.barrier], self.state.token.admin)
        self._store = ObjectStore(config.s3_config(self.state))
        self.clients: Any = None
        self._hurt: list[tuple[str, str]] = []
        self._gate_is_open = False

    def close(self) -> None:
        if self.clients is not None:
            self.clients.stop()
        self.api.close()

    # -- what is known of it, from this machine --

    def address(self, part: str, network: str) -> str:
        kind, _, number = part.rpartition("-")
        base = {"edge": 10, "host": 20, "barrier": 30, "zk": 40}[kind]
        return f"{self.net}.{NETWORKS[network]}.{base + int(number)}"

    def _state(self, directory: Path) -> state.FleetState:
        """The tools' own file, with addresses in place of names: this machine is a neighbour, not a container."""
        tools = directory / "tools"
        volume = f"{self.project.name}_secrets-tools"
        box = docker("create", "-v", f"{volume}:/secrets/tools:ro", engine.image("tools"))
        try:
            docker("cp", f"{box}:/secrets/tools", tools)
        finally:
            docker("rm", box)
        raw = (tools / state.FILE).read_text().replace("/secrets/tools", str(tools))
        for part in ("edge-1", "edge-2", "edge-3"):
            raw = raw.replace(f"http://{part}:8080", f"http://{self.address(part, 'front')}:8080")
            raw = raw.replace(f"http://{part}:9101", f"http://{self.address(part, 'control')}:9101")
        for part in ("barrier-1", "barrier-2"):
            raw = raw.replace(f"http://{part}:8300", f"http://{self.address(part, 'control')}:8300")
        raw = raw.replace("http://s3:8333", f"http://{self.net}.3.51:8333")
        (tools / state.FILE).write_text(raw)
        found = state.load(tools)
        assert found is not None
        return found

    # -- its first two builds --

    def first(self) -> None:
        """Two versions served, and hosts that install only while their gate is open."""
        raw = tomllib.loads((sample.source() / "service.toml").read_text())
        raw |= {
            "ports": self.state.slots[SERVICE],
            "stall_seconds": 2,
            "waves": {"concurrency": 2},
            "health": raw.get("health", {}) | {"interval": 1.0, "good": 1},
        }
        wait = f"until [ -e {GATE} ]; do sleep 0.05; done"
        raw["pool"] = raw.get("pool", {}) | {"install": ["sh", "-c", wait]}
        self.open_gate()
        self.api.configure(SERVICE, ServiceConfig.model_validate(raw, extra="forbid").model_dump(mode="json"))
        self.until("all parts are known", lambda: len(self.rostered()) == 3 and len(self.hosts()) == 4)
        for _ in range(2):
            number = self.api.deploy(SERVICE, self.publish()).number
            self.until("the first builds are deployed", lambda n=number: self.look(n).over)
        assert len(self.plan.serving) == 2

    def users_come(self) -> None:
        self.clients = Crowd(self.project, self.default)

    def close_gate(self) -> None:
        self._gate_is_open = False
        for host in self.state.hosts:
            docker("exec", self.project.container(host.id), "rm", "-f", GATE)

    def open_gate(self, host: str = "") -> None:
        """Of a host that is frozen as soon as it is not."""
        self._gate_is_open = True
        for each in [host] if host else [h.id for h in self.state.hosts]:
            if (each, "paused") not in self._hurt:
                docker("exec", self.project.container(each), "touch", GATE)

    def kept_open(self) -> None:
        """A container that was made anew has no gate."""
        self.open_gate()

    # -- hurting --

    def cut(self, part: str, *networks: str) -> None:
        for network in networks:
            docker("network", "disconnect", "-f", f"{self.project.name}_{network}", self.project.container(part))
            self._hurt.append((part, network))

    def join(self, part: str) -> None:
        """Back to every network that it was cut from, at the address that it had."""
        for name, network in [h for h in self._hurt if h[0] == part and h[1] != "paused"]:
            words = ("--ip", self.address(part, network), "--alias", part)
            docker("network", "connect", *words, f"{self.project.name}_{network}", self.project.container(part))
            self._hurt.remove((name, network))

    def pause(self, part: str) -> None:
        self._hurt.append((part, "paused"))
        box = self.project.container(part)

        def frozen() -> bool:
            """On a busy machine the kernel may not get all of its threads to stand still at once."""
            docker("pause", box, check=False)
            return docker("inspect", "-f", "{{.State.Paused}}", box) == "true"

        self.until(f"{part} is frozen", frozen)

    def unpause(self, part: str) -> None:
        docker("unpause", self.project.container(part))
        self._hurt.remove((part, "paused"))
        if part.startswith("host") and self._gate_is_open:
            self.open_gate(part)

    def used(self, edge: str) -> bool:
        """Does the load balancer send it anybody?"""
        rows = httpx.get(f"http://{self.net}.1.61:8405/stats;csv", timeout=5, trust_env=False).text.splitlines()
        return any(row.startswith(f"edges,{edge},") and ",UP," in row for row in rows)

    def balancer_workers(self) -> set[str]:
        """The processes of the load balancer that answer: its master's children."""
        rows = [
            r.split() for r in docker("top", self.project.container("balancer"), "-eo", "pid,ppid,comm").splitlines()
        ]
        parents = {pid: parent for pid, parent, name in rows if name == "haproxy"}
        return {pid for pid, parent in parents.items() if parent in parents}

    def _whole(self) -> bool:
        """A host's agent that is back says nothing of its pools."""
        acks = [self.ack(e.id).get("healthy", {}) for e in self.state.edges]
        return all(healthy.get(v, 0) == 4 for healthy in acks for v in self.plan.serving)

    def well(self) -> None:
        """Everybody is there, green and agreed, and every edge gets its share."""
        for edge in self.state.edges:
            self.green(edge.id)
            self.until(f"the load balancer uses {edge.id}", lambda e=edge.id: self.used(e))
            self.until(
                f"{edge.id} has applied the plan", lambda e=edge.id: self.ack(e).get("applied") == self.plan.epoch
            )
        self.until("all hosts live", lambda: len(self.hosts()) == 4)
        self.until("every edge sees all hosts of what is served", self._whole)
        for b in self.state.barrier:
            self.until(f"{b.id} is ready", lambda n=b.id: not self.unready(n))

    def mend(self) -> None:
        for part, what in list(self._hurt):
            with contextlib.suppress(AssertionError):
                (self.unpause if what == "paused" else self.join)(part)
        self._hurt.clear()
        self.open_gate()
        left = self.until("the barrier service answers", lambda: self.api.latest(SERVICE))
        if not left.over:
            back = Release("mend", self.default, self.clients.clock(), withdrawn=(left.build,), rollback=True)
            self.clients.releases.append(back)
            with contextlib.suppress(Trouble, BarrierError):
                self.api.ask(SERVICE, left.number, "abort", "mend")
            self.until("it is over", lambda: self.look(left.number).over)
        self.well()


class Crowd:
    """Users in a container, until ``stop``. Has what a rollout of ``tests.faults`` tells the clients' judge."""

    def __init__(self, project: Project, base: str) -> None:
        words = ("--network", f"{project.name}_front", "--label", f"com.docker.compose.project={project.name}")
        labels = ("--label", "com.docker.compose.service=crowd", "--label", "com.docker.compose.oneoff=True")
        image = engine.image("tools")
        run = ("--entrypoint", "python", image, "/tmp/crowd.py", "http://balancer:8080", base, str(BROWSERS))
        self._box = docker("create", "-i", "--init", *words, *labels, *run)
        docker("cp", Path(__file__).with_name("crowd.py"), f"{self._box}:/tmp/crowd.py")
        self._said = Path(os.path.realpath(project.environment.get("CROWD_LOG", os.devnull)))
        self._process = subprocess.Popen(
            ["docker", "start", "-ai", self._box], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.releases = _Releases(self)
        assert self.tell(do="clock")

    def tell(self, **word: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(word) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the crowd is gone: {engine.run('docker', 'logs', '--tail', '20', self._box, check=False).stderr}"
        return json.loads(line)

    def clock(self) -> float:
        return float(self.tell(do="clock")["clock"])

    def stop(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            docker("rm", "-f", self._box, check=False)

    def hurt(self, edge: str | None, noticed: float) -> None:
        self.tell(do="hurt", edge=edge, noticed=noticed)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody comes in while the block lasts."""
        self.tell(do="hurt", edge="balancer", noticed=None)
        yield
        self.tell(do="heal")

    @contextmanager
    def unharmed(self, *, least: int = 50, excused: int | None = None) -> Iterator[dict[str, Any]]:
        """No request on the reachable side was failed, answered by a wrong version or taken back in the block."""
        before = self.tell(do="clock")
        found: dict[str, Any] = {}
        yield found
        found |= self.tell(do="judge", requests=before["requests"], excused=before["excused"])
        assert not found["broken"], f"{len(found['broken'])} of {found['requests']}:\n" + "\n".join(
            found["broken"][:12]
        )
        assert found["requests"] >= least, f"{found['requests']} requests show nothing"
        if excused is not None:
            assert found["excused"] <= excused, f"{found['excused']} requests were under way to what was hurt"


class _Releases:
    """What a rollout appends to."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def append(self, release: Release) -> None:
        told = {"name": release.name, "build": release.build, "began": release.began, "rollback": release.rollback}
        self._crowd.tell(do="release", withdrawn=list(release.withdrawn), **told)
