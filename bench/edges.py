"""What a fleet of edges does together: how far apart they switch, how soon a new member is asked, what counting costs.

Real agents and varnishds beside a real ZooKeeper, all on this machine, so that one clock times everything: ten edges
that wake at once share cores that ten machines would not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from bench.measure import Row, Samples
from bench.servers import running, until
from fleet import paths
from fleet.model import Ack, Endpoint, Health, Member, Plan, ServiceConfig, Staged, decode
from fleet.zk import ZooKeeper, ZooKeeperTrouble
from pinrail.local import zookeeper
from pinrail.local.ports import free_port

_EDGES = 10
#: So that ten varnishds fit one machine.
_SMALL = {"vsl_space": "8m", "thread_pool_min": "5"}
#: Seconds in which nobody looks at a switch: who asks ten edges for their acks takes their cores.
_UNSEEN = 1.0
_SERVICE = ServiceConfig(health=Health(interval=5))
_OFFERED = Plan(epoch=1, generation=1, default="A", serving=("B", "A"), staged=Staged(generation=2, default="B"))


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    directory.mkdir()
    try:
        zookeeper.prepare(directory / "zookeeper", "127.0.0.1", 0)
    except zookeeper.Missing as e:
        yield Row("switch, and a member that joins", "not measured", str(e))
        return
    with _zookeeper(directory) as address, _origin(directory) as ports:
        yield from _switching(directory, address, ports, rounds)
        for count in (100, 1000):
            yield _joining(directory, address, ports, count, min(rounds, 3))


# -- switching ----------------------------------------------------------------------------------------------------


def _switching(directory: Path, address: str, ports: dict[str, int], rounds: int) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        zk = stack.enter_context(_connected(f"{address}/switch"))
        _describe(zk, _OFFERED, {v: ["127.0.0.1"] for v in ports}, ports)
        edges = [stack.enter_context(_edge(directory / f"e{n}", f"{address}/switch", _SMALL)) for n in range(_EDGES)]
        plan = _OFFERED
        skews, lasts, acks = [], [], []
        for n in range(rounds * 2 + 1):
            _settled(zk, edges, plan)
            assert plan.staged is not None  # noqa: S101
            back = Staged(generation=plan.staged.generation + 1, default=plan.default or "A")
            plan = plan.committed().model_copy(update={"epoch": plan.epoch + 1, "staged": back})
            began = time.time()
            _put(zk, paths.plan("app"), plan.encode())
            time.sleep(_UNSEEN)
            _settled(zk, edges, plan, applied=True)
            moved = [e.said_after(began, "committed") - began for e in edges]
            acked = max(e.said_after(began, f"acknowledged +applied={plan.epoch} ") for e in edges) - began
            if n:  # the first is not like the others: nothing has run before
                skews.append((max(moved) - min(moved)) * 1000)
                lasts.append(max(moved) * 1000)
                acks.append(acked * 1000)
    what = f"{_EDGES} edges on this machine"
    yield Row(f"switch, from the first edge to the last ({what})", _milliseconds(skews), "goal: ≤ 20 ms")
    yield Row(f"rollback, from the plan's write to the last edge ({what})", _milliseconds(lasts), "goal: ≤ 250 ms")
    yield Row(f"... to the last acknowledgement ({what})", _milliseconds(acks), "")


def _milliseconds(values: Sequence[float]) -> str:
    return f"{Samples(tuple(values)).text('.0f')} ms"


# -- joining ------------------------------------------------------------------------------------------------------


def _joining(directory: Path, address: str, ports: dict[str, int], count: int, rounds: int) -> Row:
    """From the creation of a member's znode to the first request that it answers. It is given so much weight that
    nearly each request is its."""
    name = f"join{count}"
    plan = Plan(epoch=1, generation=1, default="A", serving=("B", "A"))
    with contextlib.ExitStack() as stack:
        zk = stack.enter_context(_connected(f"{address}/{name}"))
        _describe(zk, plan, {v: [_address(n) for n in range(count)] for v in ports}, ports)
        edge = stack.enter_context(_edge(directory / name, f"{address}/{name}"))
        until("the edge serves all members", lambda: edge.members(zk) == dict.fromkeys(ports, count), 120)
        took = []
        for n in range(rounds):
            time.sleep(2)  # beyond the agent's least interval between two loads: a member that comes alone
            newcomer = f"127.9.0.{n + 1}"
            began = time.monotonic()
            _member(zk, "A", newcomer, ports["A"], weight=1000 * count * (n + 1))
            until(f"{newcomer} answers", partial(edge.is_answered_by, newcomer), 60)
            took.append(time.monotonic() - began)
        parts = edge.parts()
    return Row(f"member joins, 2×{count} backends", f"{Samples(tuple(took)).text('.2f')} s; {parts}", "goal: ≤ 0.5 s")


def _address(n: int) -> str:
    return f"127.1.{n // 250}.{n % 250 + 1}"


# -- the parts of a fleet -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _zookeeper(directory: Path) -> Iterator[str]:
    port = free_port()
    argv = zookeeper.prepare(directory / "zookeeper", "127.0.0.1", port)
    address = f"127.0.0.1:{port}"
    with running(argv, directory / "zookeeper.log"):
        until("ZooKeeper answers", lambda: _reachable(address), 60)
        yield address


def _reachable(address: str) -> bool:
    try:
        with _connected(address):
            return True
    except ZooKeeperTrouble:
        return False


@contextlib.contextmanager
def _connected(address: str) -> Iterator[ZooKeeper]:
    zk = ZooKeeper(address, wake=lambda *_: None)
    try:
        zk.start()
        yield zk
    finally:
        zk.close()


@contextlib.contextmanager
def _origin(directory: Path) -> Iterator[dict[str, int]]:
    """Every address of this machine's loopback is a host of A on one port and of B on another."""
    ports = {v: free_port() for v in ("A", "B")}
    servers = "".join(
        f"server {{ listen 0.0.0.0:{port}; location / {{ add_header x-served-version {v} always;"
        f' add_header Cache-Control no-store; add_header x-host $server_addr; return 200 "{v}"; }} }}\n'
        for v, port in ports.items()
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;\n"
        f"events {{ worker_connections 8192; }}\nhttp {{ access_log off; keepalive_requests 1000000;\n{servers}}}\n"
    )
    with running(["nginx", "-p", str(directory), "-c", "nginx.conf"], directory / "nginx.log"):
        yield ports


class _Edge:
    def __init__(self, name: str, listen: str, metrics: str, log: Path) -> None:
        self.name, self._metrics, self._log = name, metrics, log
        self._http = http.client.HTTPConnection(listen, timeout=10)

    def is_answered_by(self, address: str) -> bool:
        return self._ask() == address

    def _ask(self) -> str | None:
        """Which host answers a request."""
        try:
            self._http.request("GET", "/")
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            return None
        return answer.headers["x-host"]

    def ack(self, zk: ZooKeeper) -> Ack:
        node = zk.get(paths.ack("app", self.name), watch=False)
        return decode(Ack, node.data if node else None) or Ack(incarnation="")

    def members(self, zk: ZooKeeper) -> dict[str, int]:
        return dict(self.ack(zk).healthy)

    def said_after(self, began: float, what: str) -> float:
        """When it did that first, as its agent wrote it down."""
        stamps = re.findall(rf"^(\S+Z) info +{what}", self._log.read_text(), re.MULTILINE)
        return next(t for s in stamps if (t := datetime.fromisoformat(s).timestamp()) >= began)

    def parts(self) -> str:
        """Mean seconds of each phase of a load, over all loads, by the agent's own metric."""
        connection = http.client.HTTPConnection(self._metrics, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        said = []
        for phase in ("render", "compile", "probe"):
            sums = [
                re.search(rf'load_seconds_{k}\{{[^}}]*phase="{phase}"[^}}]*\}} (\S+)', text) for k in ("sum", "count")
            ]
            total, count = (float(s[1]) if s else 0.0 for s in sums)
            said.append(f"{phase} {total / count if count else 0:.2f}")
        return ", ".join(said)


@contextlib.contextmanager
def _edge(directory: Path, address: str, parameters: Mapping[str, str] | None = None) -> Iterator[_Edge]:
    directory.mkdir()
    listen, admin, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
    values = {"name": directory.name, "zookeeper": address, "directory": str(directory / "state"), "metrics": metrics}
    varnish = {"listen": listen, "admin": admin, "jail": "none", "storage": "malloc,8m"}
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    lines += ["[varnish]", *(f"{k} = {json.dumps(v)}" for k, v in varnish.items())]
    lines += ["[varnish.parameters]", *(f"{k} = {json.dumps(v)}" for k, v in (parameters or {}).items())]
    file = directory / "edge.toml"
    file.write_text("\n".join(lines) + "\n")
    pinrail = [sys.executable, "-m", "pinrail", "edge"]
    log = directory / "agent.log"
    with (
        running([*pinrail, "server", "--config", str(file)], directory / "server.log"),
        running([*pinrail, "run", "--config", str(file)], log),
    ):
        yield _Edge(directory.name, listen, metrics, log)


def _settled(zk: ZooKeeper, edges: Sequence[_Edge], plan: Plan, *, applied: bool = False) -> None:
    def done() -> bool:
        acks = [e.ack(zk) for e in edges]
        return all(a.applied == plan.epoch and (applied or a.staged == plan.epoch == a.drained) for a in acks)

    until(f"every edge has epoch {plan.epoch}", done, 120)


def _describe(zk: ZooKeeper, plan: Plan, hosts: dict[str, list[str]], ports: dict[str, int]) -> None:
    _put(zk, paths.config("app"), _SERVICE.encode())
    for version, addresses in hosts.items():
        for address in addresses:
            _member(zk, version, address, ports[version])
    _put(zk, paths.plan("app"), plan.encode())


def _member(zk: ZooKeeper, version: str, address: str, port: int, weight: int = 1) -> None:
    member = Member(serviceEndpoint=Endpoint(host=address, port=port), weight=weight, name="bench")
    zk.create(paths.member("app", version, f"{address}:{port}"), member.encode())


def _put(zk: ZooKeeper, path: str, data: bytes) -> None:
    node = zk.get(path, watch=False)
    if node is None:
        zk.create(path, data)
    else:
        zk.set(path, data, node.version)
