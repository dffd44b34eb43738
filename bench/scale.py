"""A rollout at the size that the protocol is meant for: a thousand edges and five thousand hosts, a session each.

The barrier service is the real one, in a process of its own, on a real ZooKeeper; so are its API, which is asked for
each rollout, and S3, which has the builds. Edges and hosts are thin (``bench.thin``). All share this machine's cores.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from barrier import tokenfile
from bench.edges import _connected
from bench.measure import Row
from bench.servers import connects, running, seconds_on_a_core, until
from bench.thin import SERVICE
from bench.transfer import _s3
from fleet import paths
from fleet.config import S3Config
from fleet.model import Rollout, RolloutState, ServiceConfig, decode
from fleet.s3 import ObjectStore
from fleet.zk import ZooKeeper
from pinrail.local import zookeeper
from pinrail.local.ports import free_port
from pipeline.client import Client
from pipeline.publish import publish

EDGES, HOSTS = (10, 100, 1000), 5000
#: Sessions of one thin process.
_SHARE = 2500
_PATIENCE = 300.0
_NAME = "rollout"


@dataclass(frozen=True)
class Moved:
    """What was asked of ZooKeeper and went through it, from the side of those who asked."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    def __sub__(self, other: Moved) -> Moved:
        return Moved(self.requests - other.requests, self.sent - other.sent, self.received - other.received)

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.requests + other.requests, self.sent + other.sent, self.received + other.received)

    @property
    def megabytes(self) -> float:
        return (self.sent + self.received) / 1e6


class Thin:
    """A process of thin parts of one kind."""

    def __init__(self, kind: str, address: str, first: int, count: int, log: Path) -> None:
        argv = [sys.executable, "-m", "bench.thin", kind, address, str(first), str(count)]
        with log.open("ab") as out:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out)
        self._log = log
        self._line()

    def moved(self) -> Moved:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return Moved(**self._line())

    def _line(self) -> dict[str, int]:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()  # it ends with the process, whose own calls all have a deadline
        if not line:
            raise RuntimeError(f"thin parts ended: {self._log.read_text()[-2000:]}")
        found: dict[str, int] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Measured:
    """One rollout. ``all_`` is what thin parts of either kind moved, ``edges`` what those alone did."""

    edges: int
    seconds: float
    steps: dict[str, float]
    of_edges: Moved
    of_hosts: Moved
    of_barrier: Moved | None
    cpu: float
    zookeeper_cpu: float
    memory: float


def rows(directory: Path, *, edges: Sequence[int] = EDGES, hosts: int = HOSTS) -> Iterator[Row]:
    directory.mkdir()
    try:
        zookeeper.prepare(directory / "zookeeper", "127.0.0.1", 0)
    except zookeeper.Missing as e:
        yield Row(_NAME, "not measured", str(e))
        return
    found = []
    for measured in measure(directory, edges, hosts):
        found.append(measured)
        yield _row(measured, hosts)
    yield from _summary(found, hosts)


def _row(m: Measured, hosts: int) -> Row:
    steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in m.steps.items())
    return Row(
        f"{_NAME}, {m.edges:,} edges and {hosts:,} hosts that install nothing", f"{m.seconds:.1f} s ({steps})", ""
    )


def _summary(found: Sequence[Measured], hosts: int) -> Iterator[Row]:
    last = found[-1]
    what = f"{last.edges:,} edges, {hosts:,} hosts"
    yield Row(f"... its goal ({what})", f"{last.seconds:.1f} s", "goal: ≤ 10 s")
    yield Row(
        f"... the leading barrier service ({what})",
        f"{last.memory:.0f} MB at most, {last.cpu:.1f} s on a core",
        f"ZooKeeper: {last.zookeeper_cpu:.1f} s on its cores",
    )
    barrier = f", the barrier service's {last.of_barrier.megabytes:.1f} MB" if last.of_barrier else ""
    yield Row(
        f"... through ZooKeeper ({what})",
        f"the edges' {last.of_edges.megabytes:.1f} MB, the hosts' {last.of_hosts.megabytes:.1f} MB{barrier}",
        f"{last.of_edges.requests + last.of_hosts.requests:,} requests of edges and hosts",
    )
    each = "; ".join(
        f"{m.edges:,}: {m.of_edges.requests / m.edges:.1f} requests, "
        f"{(m.of_edges.sent + m.of_edges.received) / m.edges / 1000:.0f} kB"
        for m in found
    )
    yield Row("... of each edge, by their number", each, "goal: flat")


def measure(directory: Path, edges: Sequence[int], hosts: int) -> Iterator[Measured]:
    """A rollout with each number of edges, one after the other on the same hosts; two before them fill both slots."""
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(_bed(directory))
        for first in range(0, hosts, _SHARE):
            bed.add("host", first, min(_SHARE, hosts - first))
        until("all hosts are known", lambda: len(bed.zk.children(paths.hosts(SERVICE))) == hosts, _PATIENCE)
        bed.roll()
        bed.roll()
        there = 0
        for count in edges:
            bed.add("edge", there, count - there)
            there = count
            until("all edges have acked", partial(bed.acked, count), _PATIENCE)
            yield bed.measured(there)


class Bed:
    """A barrier service on its ZooKeeper, and the thin parts that were added."""

    def __init__(self, directory: Path, address: str, zk: ZooKeeper, api: Client, store: ObjectStore, pids: Pids):
        self._directory = directory
        self._address = address
        self.zk = zk
        self._api = api
        self._store = store
        self._pids = pids
        self._builds = 0
        self._thin: dict[str, list[Thin]] = {"edge": [], "host": []}

    def add(self, kind: str, first: int, count: int) -> None:
        self._thin[kind].append(Thin(kind, self._address, first, count, self._directory / f"{kind}.log"))

    def acked(self, edges: int) -> bool:
        return len(self.zk.children(paths.acks(SERVICE))) == edges

    def close(self) -> None:
        for thin in (*self._thin["edge"], *self._thin["host"]):
            thin.close()

    def roll(self) -> tuple[float, Rollout]:
        """A new build to everywhere; the seconds from the call to the end, and the rollout."""
        build = f"b{self._builds}"
        self._builds += 1
        tree = self._directory / "tree"
        tree.mkdir(exist_ok=True)
        (tree / "build").write_text(build)
        publish(self._store, tree, SERVICE, build)
        began = time.monotonic()
        number = self._api.deploy(SERVICE, build).number
        path = paths.rollout(SERVICE, number)

        def over() -> Rollout | None:
            node = self.zk.get(path, watch=False)
            rollout = decode(Rollout, node.data if node else None)
            return rollout if rollout and rollout.done else None

        until(f"rollout {number} is over", over, _PATIENCE)
        seconds = time.monotonic() - began
        rollout = over()
        assert rollout is not None  # noqa: S101
        if rollout.state is not RolloutState.SWITCHED:
            raise RuntimeError(f"rollout {number}: {rollout.history[-1].text}")
        return seconds, rollout

    def measured(self, edges: int) -> Measured:
        before = self._look()
        seconds, rollout = self.roll()
        after = self._look()
        names = {"installing": "withdraw", "offering": "install", "switched": "offer"}
        steps: dict[str, float] = {}
        for event in rollout.history:
            name = "switch" if event is rollout.history[-1] else names.get(event.state.value)
            if name is not None and event.seconds is not None:
                steps[name] = event.seconds
        barrier = (after.barrier - before.barrier) if before.barrier and after.barrier else None
        return Measured(
            edges,
            seconds,
            steps,
            after.edges - before.edges,
            after.hosts - before.hosts,
            barrier,
            after.cpu - before.cpu,
            after.zookeeper_cpu - before.zookeeper_cpu,
            _peak(self._pids.barrier),
        )

    def _look(self) -> Look:
        sums = {k: sum((t.moved() for t in self._thin[k]), Moved()) for k in self._thin}
        return Look(
            sums["edge"],
            sums["host"],
            _connections(self._pids.barrier, self._address),
            seconds_on_a_core(self._pids.barrier),
            seconds_on_a_core(self._pids.zookeeper),
        )


@dataclass(frozen=True)
class Pids:
    zookeeper: int
    barrier: int


@dataclass(frozen=True)
class Look:
    edges: Moved
    hosts: Moved
    barrier: Moved | None
    cpu: float
    zookeeper_cpu: float


@contextlib.contextmanager
def _bed(directory: Path) -> Iterator[Bed]:
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(_s3(directory / "s3"))
        store = ObjectStore(s3)
        store.make_bucket()
        port = free_port()
        argv = zookeeper.prepare(directory / "zookeeper", "127.0.0.1", port)
        # Room for six thousand sessions; the local fleet has a dozen.
        argv = ["-Xmx1g" if a.startswith("-Xmx") else a for a in argv if a != "-XX:TieredStopAtLevel=1"]
        server = stack.enter_context(running(argv, directory / "zookeeper.log"))
        until("ZooKeeper answers", lambda: connects("127.0.0.1", port), 60)
        address = f"127.0.0.1:{port}/scale"
        barrier, url, token = stack.enter_context(_barrier(directory, address, s3))
        api = stack.enter_context(Client([url], token))
        until("the barrier service leads", lambda: _leads(url), 60)
        # Nothing that is measured hangs on how many are in their turn at once: the default is 15 %.
        api.configure(SERVICE, ServiceConfig().model_dump(mode="json"))
        zk = stack.enter_context(_connected(address))
        yield stack.enter_context(contextlib.closing(Bed(directory, address, zk, api, store, Pids(server, barrier))))


@contextlib.contextmanager
def _barrier(directory: Path, address: str, s3: S3Config) -> Iterator[tuple[int, str, str]]:
    """Its process, its URL and a token. Its own API, samplers and metrics are there as in life."""
    port = free_port()
    tokens = directory / "tokens.toml"
    token = tokenfile.create(tokens, "bench", "admin")
    config = directory / "barrier.toml"
    config.write_text(
        f'name = "barrier-1"\nzookeeper = "{address}"\nlisten = "127.0.0.1:{port}"\ntokens = "{tokens}"\n'
        f'[s3]\nendpoint = "{s3.endpoint}"\nbucket = "{s3.bucket}"\ncredentials = "{s3.credentials}"\n'
    )
    argv = [sys.executable, "-m", "pinrail", "barrier", "run", "--config", str(config)]
    with running(argv, directory / "barrier.log") as pid:
        until("the barrier service listens", lambda: connects("127.0.0.1", port), 60)
        yield pid, f"http://127.0.0.1:{port}", token


def _leads(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 5) as s:
        s.settimeout(5)
        s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return b" 200 " in s.recv(64)


def _peak(pid: int) -> float:
    """The most memory that a process had in its life, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1000 if found else 0.0


def _connections(pid: int, address: str) -> Moved | None:
    """What a process's connections to ZooKeeper have carried, as the kernel counts it; None where ``ss`` is missing."""
    port = address.partition("/")[0].rpartition(":")[2]
    try:
        said = subprocess.run(
            ("ss", "-tinpHO", "dst", f"127.0.0.1:{port}"), capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    sums = {"bytes_sent": 0, "bytes_received": 0}
    for line in said.splitlines():
        if f"pid={pid}," in line:
            for key in sums:
                found = re.search(rf"{key}:(\d+)", line)
                sums[key] += int(found.group(1)) if found else 0
    return Moved(0, sums["bytes_sent"], sums["bytes_received"])
