"""The nginx engine's agent against a real nginx, ZooKeeper and hosts: what users and barriers would notice."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from edge.nginx import server
from edge.nginx.control import Nginx
from fleet.model import Pin, Plan
from fleet.zk import ZooKeeperTrouble
from tests.conftest import ZooKeeperServer, eventually
from tests.edge.bed import CONFIG, Edge, WebSocket, World, slow_request
from tests.edge.steps import committed, first, offered


@pytest.fixture
def edge(nginx_edge: Edge) -> Edge:
    return nginx_edge


class KeptConnections:
    """Clients that keep their connections, and send nothing twice: what is lost at a reload, they notice."""

    def __init__(self, edge: Edge, count: int = 6) -> None:
        self._edge = edge
        self._stop = threading.Event()
        self.bad: list[str] = []
        self.versions: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def _run(self, n: int) -> None:
        host, _, port = self._edge.listen.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        while not self._stop.is_set():
            try:
                body = b"x" * 100 if n % 2 else None
                connection.request("POST" if n % 2 else "GET", "/api", body=body)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.bad.append(f"{answer.status}")
                self.versions.append(answer.getheader("x-deployment-id") or "")
                if answer.will_close:
                    connection.close()
            except (OSError, http.client.HTTPException) as e:
                self.bad.append(repr(e))
                connection.close()
            time.sleep(0.01 * n)
        connection.close()

    def __enter__(self) -> KeptConnections:
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for t in self._threads:
            t.join(30)


def test_a_plan_is_applied_acknowledged_and_answers(world: World, edge: Edge) -> None:
    first(world, edge)
    answer = edge.ask("/", Sec_Fetch_Dest="document")
    assert (answer.status, answer.build, answer.version) == (200, "A", "A")
    assert answer.headers["x-deployment-status"] == "current"
    assert re.fullmatch(r"__dpl=1\.A\.[0-9]{1,4}; Path=/; SameSite=Lax", answer.cookies[0])
    ack = edge.ack()
    assert (ack.engine, ack.applied, ack.staged, ack.drained) == ("nginx", 1, 1, 1)
    assert ack.healthy == ack.members == {"A": 1}
    assert ack.error is None


def test_releases_under_kept_connections_lose_nothing_and_a_switch_needs_no_reload(world: World, edge: Edge) -> None:
    first(world, edge)
    with KeptConnections(edge) as load:
        plan = offered(world, edge)
        workers = Nginx(edge.config).look().workers
        back = committed(plan, "A")
        world.plan(back)
        eventually("the switch is applied", lambda: edge.ack().applied == 3)
        assert edge.ask("/").version == "B"
        assert edge.ask("/", x_deployment_id="A").version == "A"
        eventually("the way back is staged", lambda: edge.acked(3), 60)
        assert Nginx(edge.config).look().workers.isdisjoint(workers)
        rolled_back = committed(back, "B")
        world.plan(rolled_back)
        eventually("it is rolled back", lambda: edge.ack().applied == 4)
        assert edge.ask("/").version == "A"
        eventually("and drained", lambda: edge.ack().drained == 4, 60)
    assert load.bad == []
    order = [v for i, v in enumerate(load.versions) if i == 0 or load.versions[i - 1] != v]
    assert set(order) == {"A", "B"}


def test_a_switch_by_file_reaches_new_requests_before_any_reload(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    before = Nginx(edge.config).look()
    host, _, port = edge.listen.rpartition(":")
    idle = http.client.HTTPConnection(host, int(port), timeout=30)  # keeps the reload that follows waiting
    idle.request("GET", "/")
    assert idle.getresponse().read()
    world.plan(committed(plan, "A"))
    eventually("the switch is applied", lambda: edge.ack().applied == 3)
    assert edge.ask("/").version == "B"
    assert Nginx(edge.config).look().workers == before.workers
    idle.close()


def test_drained_waits_for_a_request_on_the_withdrawn_version(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = committed(offered(world, edge), "A")
    world.plan(plan)
    eventually("B is the default", lambda: edge.acked(3), 60)
    with slow_request(edge, world.backends[0], x_deployment_id="A") as answers:
        world.plan(Plan(epoch=4, generation=2, default="B", serving=("B",), retired=("A",)))
        eventually("the withdrawal is applied", lambda: edge.ack().applied == 4, 60)
        assert edge.ack().drained < 4
        gone = edge.ask("/", x_deployment_id="A")
        assert (gone.version, gone.headers["x-deployment-status"]) == ("B", "retired")
        assert edge.ack().drained < 4
    assert [a.build for a in answers] == ["A"]
    eventually("the withdrawal is drained", lambda: edge.ack().drained == 4)
    eventually("what it answered is counted", lambda: _counted(edge, 'from="A"') > 0)
    world.plan(Plan(epoch=5, generation=2, default="B", serving=("B",)))
    eventually(
        "a version that the plan forgets leaves no series", lambda: not [n for n in edge.metrics() if '="A"' in n]
    )


def test_a_websocket_outlives_a_switch_and_is_cut_where_it_holds_up_a_withdrawal(world: World, edge: Edge) -> None:
    edge.configure(nginx={**edge.config.nginx.model_dump(), "drain_seconds": 4})
    first(world, edge)
    plan = offered(world, edge)
    with contextlib.closing(WebSocket(edge, "A")) as endless:
        assert endless.echoes()
        world.plan(committed(plan, "A"))
        eventually("B is the default", lambda: edge.ack().applied == 3)
        assert endless.echoes()
        world.plan(Plan(epoch=4, generation=2, default="B", serving=("B",), retired=("A",)))
        eventually("the withdrawal is applied", lambda: edge.ack().applied == 4, 60)
        eventually("and drained", lambda: edge.ack().drained == 4, 60)
        assert endless.ended()


def test_what_a_host_may_have_acted_upon_is_sent_to_no_other(world: World, edge: Edge) -> None:
    first(world, edge)
    other = world.host("A")
    eventually("both take requests", lambda: edge.ack().healthy == {"A": 2}, 60)
    eventually("and are asked", lambda: _asks(edge, other) > 0, 60)
    other.drops = True
    assert all(edge.ask(f"/get/{n}").status == 200 for n in range(10))
    statuses = {m: [edge.ask(f"/{m}/{n}", method=m, body=b"once").status for n in range(10)] for m in ("PUT", "POST")}
    for method, said in statuses.items():
        got = [path.partition(" ")[2] for b in world.backends for path in b.asked if path.startswith(f"{method} ")]
        assert sorted(got) == sorted(f"/{method}/{n}" for n in range(10)), "each once"
        assert set(said) == {200, 503}
    assert any(path.startswith("/get/") for path in other.asked), "it was asked, and another answered"


def test_a_worker_that_dies_costs_its_own_requests_only(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    before = Nginx(edge.config).look()
    os.kill(min(before.workers), signal.SIGKILL)
    eventually("another takes its place", lambda: len(Nginx(edge.config).look().workers - before.workers) == 1)
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged by all", lambda: edge.acked(3), 60)
    assert {edge.ask("/").version for _ in range(20)} == {"B"}


def test_a_dead_host_takes_no_requests_and_comes_back(world: World, edge: Edge) -> None:
    first(world, edge)
    other = world.host("A")
    eventually("both take requests", lambda: edge.ack().healthy == {"A": 2}, 60)
    other.sick = True
    eventually("it is seen sick", lambda: edge.ack().healthy == {"A": 1})
    eventually("and left out", lambda: len(Nginx(edge.config).look().leaving) == 0 and edge.acked(1))
    seen = len(other.asked)
    assert all(edge.ask("/api").status == 200 for _ in range(6))
    eventually("the configuration without it is loaded", lambda: _asks(edge, other) == 0)
    other.sick = False
    eventually("it takes requests again", lambda: _asks(edge, other) > 0, 60)
    assert len(other.asked) > seen


def test_where_no_host_is_heard_those_that_served_serve_on(world: World, edge: Edge) -> None:
    first(world, edge)
    world.host("A")
    eventually("both take requests", lambda: edge.ack().healthy == {"A": 2}, 60)
    eventually("and are loaded", lambda: not Nginx(edge.config).look().leaving and edge.acked(1), 60)
    for backend in world.backends:
        backend.hangs.set()
    eventually("nobody is heard, and it is said", lambda: "probes: kept the 2 " in (edge.ack().error or ""), 60)
    assert edge.ack().healthy == {"A": 0}
    assert _counted(edge, 'kind="probes"') == 1
    assert all(edge.ask("/api").status == 200 for _ in range(6))
    world.backends[0].hangs.clear()
    eventually("who is heard again is believed", lambda: edge.ack().healthy == {"A": 1} and not edge.ack().error, 60)
    world.backends[1].hangs.clear()
    eventually("all is well", lambda: edge.ack().healthy == {"A": 2} and edge.health() == 200, 60)


def _asks(edge: Edge, backend: object) -> int:
    asked = backend.asked  # type: ignore[attr-defined]
    before = len(asked)
    for _ in range(6):
        assert edge.ask("/api").status == 200
    return len(asked) - before


def test_after_a_restart_of_nginx_the_page_is_red_until_the_agent_has_looked(world: World, edge: Edge) -> None:
    first(world, edge)
    edge.kill("run")
    before = edge.ack()
    edge.kill("server", signal.SIGTERM)
    edge.start("server")
    eventually("nginx is back with what it had", lambda: _version(edge) == "A")
    assert edge.health() == 503
    edge.start("run")
    eventually("green again", lambda: edge.health() == 200, 60)
    eventually("acknowledged anew", lambda: edge.acked(1) and edge.ack().incarnation != before.incarnation)


@pytest.mark.parametrize("known", [False, True], ids=["new", "restarted"])
def test_from_the_first_green_page_on_every_request_is_answered(world: World, edge: Edge, known: bool) -> None:
    """What a load balancer sends as soon as it may, to an edge that starts with its server while two versions serve."""
    world.configure()
    world.host("A")
    world.host("B")
    world.plan(Plan(epoch=2, generation=2, default="B", serving=("B", "A")))
    if known:
        edge.start()
        eventually("the plan is acknowledged", lambda: edge.acked(2) and edge.health() == 200, 60)
        edge.kill("run", signal.SIGTERM)
        edge.kill("server", signal.SIGTERM)
    edge.start("server")
    edge.start("run")
    bad, asked, ends = [], 0, time.monotonic() + 60
    while asked < 300:
        assert time.monotonic() < ends, f"not green: {asked} requests"
        if not asked and edge.health() != 200:
            continue
        asked += 1
        pin = "AB"[asked % 2]
        answer = edge.ask("/api", x_deployment_id=pin)
        if (answer.status, answer.version) != (200, pin) or edge.health() != 200:
            bad.append((asked, answer.status, answer.version))
    assert not bad, bad[:5]


def _version(edge: Edge) -> str | None:
    try:
        return edge.ask("/").version
    except OSError:
        return None


def children(edge: Edge) -> set[int]:
    """The parents of all nginx processes that write this edge's log."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            files = [str(f.readlink()) for f in (process / "fd").iterdir()]
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            title = (process / "cmdline").read_bytes()
            ours = any(f.startswith(f"{server.directory(edge.config)}/requests.log") for f in files)
            if ours and title.startswith(b"nginx: ") and not title.startswith(b"nginx: master"):
                found.add(parent)
    return found


def test_what_was_committed_outlives_both_processes(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = committed(offered(world, edge), "A")
    edge.kill("run", signal.SIGTERM)
    world.plan(plan)
    assert edge.ask("/").version == "A", "nobody switches while the agent is away"
    edge.start("run")
    eventually("switched", lambda: edge.ack().applied == 3, 60)
    edge.kill("run")
    edge.kill("server")
    edge.start("server")
    eventually("nginx is back", lambda: _version(edge) == "B")
    edge.start("run")
    eventually("all is well", lambda: edge.acked(3) and edge.health() == 200, 60)
    eventually("and drained", lambda: edge.ack().drained == 3)
    master = edge.processes["server"].pid
    eventually("nothing is left of the killed master", lambda: children(edge) == {master})


def test_while_zookeeper_is_away_everything_serves_on(
    world: World, edge: Edge, zookeeper_server: ZooKeeperServer
) -> None:
    first(world, edge)
    zookeeper_server.stop()
    try:
        eventually("the agent says so", lambda: "serving app as before" in edge.log(), 60)
        assert edge.ask("/").version == "A"
        assert edge.health() == 200
        world.backends[0].sick = True
        eventually("the page is red where nobody is left to answer", lambda: edge.health() == 503, 60)
        world.backends[0].sick = False
        eventually("and green again", lambda: edge.health() == 200, 60)
        assert edge.ask("/").version == "A"
        edge.kill("server", signal.SIGTERM)
        edge.start("server")
        eventually("a start that ZooKeeper knows nothing of is red", lambda: "what it has to say" in edge.page(), 60)
    finally:
        zookeeper_server.start()
    eventually("acknowledged again", lambda: _acked_again(edge), 60)
    eventually("and green", lambda: edge.health() == 200, 60)


def _acked_again(edge: Edge) -> bool:
    with contextlib.suppress(ZooKeeperTrouble):
        return edge.acked(1)
    return False


def test_a_service_that_nginx_cannot_express_is_refused_in_words_and_others_serve(world: World, edge: Edge) -> None:
    first(world, edge)
    world.configure(config=CONFIG.model_copy(update={"pin": Pin(header="x!pin")}))
    eventually("the ack says why", lambda: "pin.header" in (edge.ack().error or ""))
    world.configure()
    eventually("and is well again", lambda: edge.ack().error is None and edge.acked(1), 60)
    assert edge.ask("/").version == "A"


def test_an_answer_with_another_stamp_is_not_delivered(world: World, edge: Edge) -> None:
    first(world, edge)
    world.backends[0].stamp = "Z"
    try:
        answer = edge.ask("/api")
    except (OSError, http.client.HTTPException):
        pass
    else:
        assert answer.status == 503, "it lies to probes too, and may be out already"
    eventually("a host that lies is not healthy", lambda: edge.ack().healthy == {"A": 0})
    eventually("it is counted", lambda: _counted(edge, "pinrail_edge_stamp_mismatches_total") >= 1)
    assert _counted(edge, 'outcome="fault"') == 0


def _counted(edge: Edge, part: str) -> float:
    return sum(v for name, v in edge.metrics().items() if part in name)


def test_every_request_is_counted_once_across_reloads(world: World, edge: Edge) -> None:
    first(world, edge)
    with KeptConnections(edge, 4) as load:
        offered(world, edge)
    assert load.bad == []
    for _ in range(5):
        edge.ask("/", x_deployment_id="never")
    expected = len(load.versions) + 5
    eventually("all are counted", lambda: _counted(edge, "pinrail_edge_requests_total") == expected)
    assert _counted(edge, 'to="A"') == _counted(edge, 'outcome="forced"') == 5


def test_sighup_to_nothing_of_ours_changes_nothing(world: World, edge: Edge) -> None:
    """Somebody reloads nginx by hand: the same configuration in new workers is still acknowledged."""
    first(world, edge)
    look = Nginx(edge.config).look()
    os.kill(look.master, signal.SIGHUP)
    eventually("new workers", lambda: Nginx(edge.config).look().workers != look.workers)
    eventually("drained", lambda: edge.ack().drained == 1)
    assert edge.ask("/").version == "A"


def test_a_host_counts_as_healthy_only_once_requests_can_reach_it(world: World, edge: Edge) -> None:
    """Barriers go on by what an edge says is healthy: a version that it counts must be had from it at once."""
    first(world, edge)
    world.host("B")
    world.plan(Plan(epoch=2, generation=1, default="A", serving=("B", "A")))
    eventually("the edge says that B is healthy", lambda: edge.ack().healthy.get("B") == 1, 60)
    answers = [edge.ask("/api", x_deployment_id="B") for _ in range(10)]
    assert {(a.status, a.version, a.headers["x-deployment-status"]) for a in answers} == {(200, "B", "previous")}
