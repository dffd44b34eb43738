"""What ZooKeeper may hold and no edge can use: it serves on, and says what is wrong in log, ack and metric."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet import paths
from fleet.model import Health, Plan, ServiceConfig
from fleet.zk import Create, ZooKeeper
from tests.conftest import ZooKeeperServer, eventually
from tests.edge.bed import CONFIG, Edge, World, make_edge
from tests.edge.steps import first, offered

PLAN = Plan(epoch=1, generation=1, default="A", serving=("A",))


@dataclass
class Bed:
    """One edge for all of this module: whatever a test breaks, it mends."""

    world: World
    edge: Edge
    epoch: int = 1

    @property
    def plan(self) -> Plan:
        self.epoch += 1
        return PLAN.model_copy(update={"epoch": self.epoch})

    def put(self, path: str, data: bytes) -> None:
        node = self.world.zk.get(path, watch=False)
        if node is None:
            self.world.zk.create(path, data)
        else:
            self.world.zk.set(path, data, node.version)

    def fault(self, kind: str, service: str = "app") -> bool:
        name = f'pinrail_edge_fault{{edge="edge-1",kind="{kind}",service="{service}"}}'
        return self.edge.metrics().get(name) == 1

    def said(self, kind: str, *texts: str, service: str = "app") -> None:
        """In ack, metric and log; and requests are answered as before."""
        eventually(f"{texts} in the ack", lambda: all(t in (self.edge.ack(service).error or "") for t in texts))
        eventually("the metric says so", lambda: self.fault(kind, service))
        eventually("the log says so", lambda: all(t in self.edge.log() for t in texts))
        assert (self.edge.ask("/").status, self.edge.ask("/").build, self.edge.health()) == (200, "A", 200)

    def mended(self, kind: str) -> None:
        good = self.plan
        self.put(paths.config("app"), CONFIG.encode())
        self.put(paths.plan("app"), good.encode())
        eventually("it goes on", lambda: self.edge.acked(good.epoch) and not self.edge.ack().error)
        assert not self.fault(kind)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, zookeeper_server: ZooKeeperServer) -> Iterator[Bed]:
    address = f"127.0.0.1:{zookeeper_server.port}/bad-input"
    zk = ZooKeeper(address, wake=lambda *_: None, deadline=20)
    zk.start()
    world, edge = World(zk), make_edge(tmp_path_factory.mktemp("bad"), address, zk)
    first(world, edge)
    yield Bed(world, edge)
    edge.close()
    world.close()
    zk.close()


def test_a_plan_with_fields_of_the_future_is_applied(bed: Bed) -> None:
    plan = json.loads(bed.plan.encode()) | {"holograms": [{"of": "A"}], "staged": None}
    bed.put(paths.plan("app"), json.dumps(plan).encode())
    eventually("it is applied", lambda: bed.edge.acked(bed.epoch))
    assert bed.edge.ack().error is None


@pytest.mark.parametrize(
    ("what", "data", "says"),
    [
        ("plan", b'{"epoch": 99, "default": "A", "serving": ["A"], "mode": "quantum"}', "mode: must be"),
        ("plan", b"\xff{ not json", "plan of app is malformed"),
        ("plan", b"", "0 bytes long"),
        ("plan", b'{"epoch": 99, "updated_by": "' + b"x" * 600_000 + b'"}', "bytes long"),
        ("plan", b'{"epoch": 99, "default": "Z", "serving": ["A"]}', "not in serving"),
        ("plan", b'["A"]', "plan of app is malformed"),
        ("config", b"<xml/>", "config of app is malformed"),
        ("config", b'{"unstamped": "perhaps"}', "unstamped: must be"),
    ],
)
def test_a_payload_that_cannot_be_believed_leaves_the_last_good_one(
    bed: Bed, what: str, data: bytes, says: str
) -> None:
    before = bed.edge.ack().applied
    bed.put(paths.plan("app") if what == "plan" else paths.config("app"), data)
    bed.said(what, says)
    assert bed.edge.ack().applied == before
    bed.mended(what)


def test_members_that_are_none_are_named_and_the_others_take_requests(bed: Bed) -> None:
    second = bed.world.host("A")
    good = json.loads(second.member().encode())

    def member(name: str, data: bytes | None = None, **endpoint: object) -> str:
        path = paths.member("app", "A", name)
        bed.put(path, data or json.dumps(good | {"serviceEndpoint": {**good["serviceEndpoint"], **endpoint}}).encode())
        return path

    made = [
        member("twice"),
        member("named", host="localhost"),
        member("spaced", host=" 10.0.0.1"),
        member("quoted", host='10.0.0.1"; } sub vcl_recv { return (synth(500)); } #'),
        member("zero", port=0),
        member("text", port="eighty"),
        member("broken", b"{"),
        member("huge", b'{"name": "' + b"x" * 300_000 + b'"}'),
    ]
    eventually("what is a host is used", lambda: bed.edge.ack().healthy == {"A": 2})
    bed.said("members", "A: the member of broken is malformed", "and 4 more")
    made.append(member("six", host="::1"))
    eventually("IPv6 compiles, and is probed", lambda: bed.edge.ack().members == {"A": 3})
    for path in made:
        bed.world.zk.delete(path)
    eventually("a third of them left", lambda: bed.edge.ack().members == {"A": 2})
    bed.world.leave(second)
    eventually("they are gone", lambda: bed.edge.ack().members == {"A": 1})
    bed.mended("members")


def test_a_service_of_which_nothing_good_was_ever_known_is_said_and_touches_no_other(bed: Bed) -> None:
    bed.put(paths.plan("odd"), b"{")
    bed.said("plan", "plan of odd is malformed", service="odd")
    assert bed.edge.ack("odd").applied == 0
    bed.put(paths.config("odd"), ServiceConfig.model_validate({"match": [{"host": "odd.example"}]}).encode())
    bed.put(paths.plan("odd"), PLAN.encode())
    eventually("it is applied once it is good", lambda: bed.edge.acked(1, "odd"))
    eventually("and nothing is wrong", lambda: not bed.fault("plan", "odd") and not bed.edge.ack("odd").error)


def test_ten_thousand_members_are_loaded_while_the_old_ones_serve(bed: Bed) -> None:
    """Nobody listens there: what is shown is that reading, rendering, compiling and acknowledging end."""
    slow = CONFIG.model_copy(update={"health": Health(interval=60)})
    bed.put(paths.config("app"), slow.encode())
    good = json.loads(bed.world.backends[0].member().encode())
    addresses = [f"127.1.{i // 256}.{i % 256}" for i in range(10_000)]
    for start in range(0, len(addresses), 1000):
        bed.world.zk.commit(
            [
                Create(
                    paths.member("app", "A", f"{a}:9"),
                    json.dumps(good | {"serviceEndpoint": {"host": a, "port": 9}}).encode(),
                )
                for a in addresses[start : start + 1000]
            ]
        )
    assert bed.edge.ask("/").build == "A"
    eventually("all are in the acknowledgement", lambda: bed.edge.ack().members == {"A": 10_001}, 240)
    eventually("and in what requests use", lambda: bed.edge.acked(bed.epoch), 240)
    eventually("the one that lives answers", lambda: bed.edge.ask("/").status == 200)


def test_gcc_gives_the_same_as_tcc(tmp_path: Path, zk_address: str, zk: ZooKeeper, world: World) -> None:
    edges = [make_edge(tmp_path / c, zk_address, zk, f"edge-{c}", compiler=c) for c in ("gcc", "tcc")]
    try:
        first(world, edges[0])
        edges[1].start()
        offered(world, edges[0])
        eventually("both apply it", lambda: all(e.acked(2) and e.health() == 200 for e in edges), 60)
        gcc, tcc = ({(v.name, v.target, v.warm) for v in e.look().vcls} for e in edges)
        assert gcc == tcc
        assert [e.ask("/", x_deployment_id="B").version for e in edges] == ["B", "B"]
    finally:
        for e in edges:
            e.close()
