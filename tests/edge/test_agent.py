"""The agent against a real varnishd, a real ZooKeeper and real hosts: what users and barriers would notice."""

from __future__ import annotations

import contextlib
import signal
import socket

from edge import server
from edge.varnish import Varnish, VarnishTrouble
from fleet import paths
from fleet.model import Health, Plan, ServiceConfig, Staged
from pinrail.local.ports import free_port
from tests.conftest import ZooKeeperServer, eventually
from tests.edge.bed import CONFIG, Edge, Load, World, kill_pid, slow_request
from tests.edge.steps import PLAN, committed, first, offered


def test_a_plan_is_applied_acknowledged_and_answers(world: World, edge: Edge) -> None:
    first(world, edge)
    answer = edge.ask("/")
    assert (answer.status, answer.build, answer.version) == (200, "A", "A")
    assert answer.headers["x-deployment-status"] == "current"
    ack = edge.ack()
    assert (ack.applied, ack.staged, ack.drained) == (1, 1, 1)
    assert ack.healthy == ack.members == {"A": 1}
    assert ack.error is None
    assert edge.zk.get(paths.rostered("edge-1")) is not None


def test_beside_plain_http_it_takes_what_a_tls_proxy_sends_and_knows_its_clients(world: World, edge: Edge) -> None:
    port = free_port()
    listen = [edge.listen, f"127.0.0.1:{port},PROXY"]
    storage = ["malloc,16m", "Transient=malloc,16m"]
    edge.configure(varnish={**edge.config.varnish.model_dump(), "listen": listen, "storage": storage})
    first(world, edge)
    assert edge.ask("/api").status == 200
    with socket.create_connection(("127.0.0.1", port), 30) as proxy, proxy.makefile("rb") as answer:
        proxy.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\nGET /api HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
    assert world.backends[0].clients[-1] == "192.0.2.7"


def test_the_first_deploy_of_a_service(world: World, edge: Edge) -> None:
    edge.start()
    eventually("an edge without services is green", lambda: edge.health() == 200)
    world.configure()
    world.plan(Plan())
    eventually("the empty plan is applied", lambda: edge.ask("/").headers.get("x-deployment-status") == "none")
    world.host("A")
    offer = Plan(epoch=1, serving=("A",), staged=Staged(generation=1, default="A"))
    world.plan(offer)
    eventually("the offer is acknowledged", lambda: edge.acked(1) and edge.ack().healthy == {"A": 1})
    world.plan(Plan(epoch=2, generation=1, default="A", serving=("A",)))
    eventually("it answers", lambda: edge.acked(2) and edge.ask("/").version == "A")
    assert edge.health() == 200


def test_the_pin_cookie_stands_beside_the_applications_own(world: World, edge: Edge) -> None:
    first(world, edge)
    world.backends[0].cookies = ["a=1; HttpOnly", "b=2"]
    answer = edge.ask("/", Sec_Fetch_Dest="document", Cookie="s=1; __dpl=0.A.7")
    assert answer.cookies == ["a=1; HttpOnly", "b=2", "__dpl=1.A.7; Path=/; SameSite=Lax"]
    assert answer.headers["x-deployment-status"] == "current"


def test_a_switch_loses_nothing_and_old_pages_stay(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    with Load(edge) as new, Load(edge, lambda a: a.build == "A" and a.version == "A", x_deployment_id="A") as old:
        eventually("requests flow", lambda: len(new.versions) > 20)
        world.plan(committed(plan, "A"))
        eventually("the switch is acknowledged", lambda: edge.acked(3))
        seen = len(new.versions)
        eventually("requests flow", lambda: len(new.versions) > seen + 20)
        world.plan(committed(committed(plan, "A"), "B"))
        eventually("the rollback is acknowledged", lambda: edge.acked(4))
    assert not new.bad and not old.bad
    turns = [v for i, v in enumerate(new.versions) if i == 0 or new.versions[i - 1] != v]
    assert turns in (["A", "B"], ["A", "B", "A"])
    assert edge.ask("/").version == "A"


def test_a_commit_compiles_nothing(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    before = {v.name for v in edge.look().vcls}
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged", lambda: edge.acked(3))
    lines = [line for line in edge.log().splitlines() if " loaded " in line or " committed " in line]
    assert " committed " in lines[-2] and lines[-2].split("vcl=")[1].split()[0] in before
    assert " loaded " in lines[-1]


def test_a_slow_request_holds_drained_back(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    a = world.backends[0]
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged", lambda: edge.acked(3))
    with slow_request(edge, a, x_deployment_id="A") as answers:
        world.plan(Plan(epoch=4, generation=2, default="B", serving=("B",), retired=("A",)))
        eventually("the withdrawal is applied", lambda: edge.ack().applied == 4)
        assert edge.ack().drained == 3
        assert edge.ask("/api", x_deployment_id="A").headers["x-deployment-status"] == "retired"
    assert answers[0].build == "A"
    eventually("drained follows", lambda: edge.ack().drained == 4)


def test_a_child_that_dies_comes_back_and_voids_its_acks(world: World, edge: Edge) -> None:
    first(world, edge)
    offered(world, edge)
    before = edge.ack()
    child = edge.look().child
    assert child
    kill_pid(child)
    eventually("a new incarnation acknowledges", lambda: edge.ack().incarnation != before.incarnation and edge.acked(2))
    eventually("it answers", lambda: edge.ask("/").status == 200)
    assert edge.ack().healthy == {"A": 1, "B": 1}
    eventually("it is green, with hosts that it has seen to be well", lambda: edge.health() == 200)


def test_a_manager_that_dies_boots_from_the_last_good_set_and_is_red_until_it_is_up_to_date(
    world: World, edge: Edge
) -> None:
    first(world, edge)
    offered(world, edge)
    edge.kill("run", signal.SIGTERM)
    edge.kill("server", signal.SIGTERM)
    edge.start("server")
    eventually("it answers without an agent", lambda: edge.health() == 503 and edge.ask("/").status == 200)
    assert edge.ask("/").version == "A"
    edge.start("run")
    eventually("it is acknowledged", lambda: edge.acked(2))
    eventually("and green", lambda: edge.health() == 200)


def test_an_agent_that_dies_changes_nothing_and_adopts_what_is_loaded(world: World, edge: Edge) -> None:
    first(world, edge)
    offered(world, edge)
    before = {v.name for v in edge.look().vcls}
    with Load(edge) as load:
        edge.kill("run")
        eventually("requests flow without it", lambda: len(load.versions) > 50)
        edge.start("run")
        eventually("it is back", lambda: "/none" not in edge.ack().incarnation and edge.acked(2), 30)
    assert not load.bad
    assert {v.name for v in edge.look().vcls} == before


def test_without_zookeeper_it_serves_on_and_says_so(
    world: World, edge: Edge, zookeeper_server: ZooKeeperServer
) -> None:
    first(world, edge)
    zookeeper_server.stop()
    try:
        with Load(edge) as load:
            eventually("it says so", lambda: "serving app as before" in edge.log(), 30)
            assert edge.health() == 200
        assert not load.bad and load.versions
        world.backends[0].sick = True
        eventually("the page is red where nobody is left to answer", lambda: edge.health() == 503, 30)
        world.backends[0].sick = False
        eventually("and green again", lambda: edge.health() == 200, 30)
        edge.kill("server", signal.SIGTERM)
        edge.start("server")
        eventually("a start that ZooKeeper knows nothing of is red", lambda: "what it has to say" in edge.page(), 30)
    finally:
        zookeeper_server.start()
    eventually("ZooKeeper is back for the test", lambda: world.zk.connected)
    world.plan(Plan(epoch=5, generation=1, default="A", serving=("A",)))
    eventually("it goes on", lambda: edge.acked(5) and edge.health() == 200, 30)


def test_a_vcl_that_does_not_compile_is_refused_with_the_compilers_words(world: World, edge: Edge) -> None:
    first(world, edge)
    edge.set_parameter("cc_command", "echo no compiler here; exit 1")
    world.plan(Plan(epoch=2, generation=2, default="A", serving=("A",)))
    eventually("the refusal is acknowledged", lambda: edge.ack().error)
    assert "no compiler here" in (edge.ack().error or "")
    assert edge.ack().applied == 1
    assert edge.ask("/").build == "A"
    assert edge.health() == 200


def test_a_host_that_joins_is_used_and_one_that_dies_is_not(world: World, edge: Edge) -> None:
    first(world, edge)
    second = world.host("A")
    third = world.host("A")
    eventually("they are used", lambda: edge.ack().healthy == {"A": 3})
    eventually("by requests", lambda: edge.ask("/").status == 200 and second.asked and third.asked)
    second.close()
    world.backends.remove(second)
    eventually("a dead one is seen", lambda: edge.ack().healthy == {"A": 2})
    world.leave(second)
    eventually("and dropped", lambda: edge.ack().members == {"A": 2})


def test_a_host_that_leaves_gets_no_request_even_before_the_compile(world: World, edge: Edge) -> None:
    first(world, edge)
    others = [world.host("A") for _ in range(3)]
    eventually("they are used", lambda: edge.ack().healthy == {"A": 4})
    world.leave(others[0])
    eventually("it is marked", lambda: edge.ack().healthy == {"A": 3})
    others[0].asked.clear()
    for _ in range(40):
        assert edge.ask("/").status == 200
    assert not others[0].asked
    eventually("and then gone", lambda: edge.ack().members == {"A": 3})


def test_a_host_that_comes_back_is_used_though_the_agent_that_marked_it_is_dead(world: World, edge: Edge) -> None:
    """An agent marks who leaves, and may be killed before it has loaded a VCL without them."""
    first(world, edge)
    world.host("A")
    eventually("both are used", lambda: edge.ack().healthy == {"A": 2})
    edge.kill("run")
    vcl = next(v.target for v in edge.look().vcls if v.target)
    with contextlib.closing(Varnish(edge.config.varnish.admin, server.secret_file(edge.config))) as varnish:
        backend = min(varnish.health(vcl))
        varnish.mark(vcl, backend, "sick")
        assert varnish.held_sick(vcl) == {backend}
    edge.start("run")
    eventually("both are used again", lambda: edge.acked(1) and edge.ack().healthy == {"A": 2})


def test_a_newcomer_costs_the_others_nothing_even_if_varnish_starts_anew(world: World, edge: Edge) -> None:
    """Their next probes come in a minute: whatever is right about their health was known before."""
    world.configure(config=CONFIG.model_copy(update={"health": Health(interval=60)}))
    older = world.host("A")
    world.plan(PLAN)
    edge.start()
    eventually("it is green", lambda: edge.acked(1) and edge.ack().healthy == {"A": 1} and edge.health() == 200)
    older.hangs.set()
    world.host("A")
    eventually("both are used", lambda: edge.ack().healthy == {"A": 2} and edge.acked(1))
    child = edge.look().child
    assert child
    older.asked.clear()
    kill_pid(child)

    def back() -> bool:
        try:
            return edge.look().child not in (child, None) and edge.ask("/").status == 200
        except (OSError, VarnishTrouble):
            return False

    eventually("Varnish is back", back)
    eventually("the older one is asked", lambda: edge.ask("/").status == 200 and "/" in older.asked)
    assert edge.ack().healthy["A"] >= 1
    older.hangs.clear()


def test_mixed_mode_is_one_pool_whose_flip_flops_are_counted(world: World, edge: Edge) -> None:
    first(world, edge)
    second = world.host("A")
    eventually("both are used", lambda: edge.ack().healthy == {"A": 2})
    world.plan(Plan(epoch=2, generation=1, default="A", serving=("B", "A"), mode="mixed"))
    eventually("mixed is applied", lambda: edge.acked(2))
    world.leave(second)
    world.host("B")
    eventually("one of each", lambda: edge.ack().members == {"A": 1, "B": 1} and edge.acked(2))
    eventually("both healthy", lambda: edge.ack().healthy == {"A": 1, "B": 1})
    answers = [edge.ask("/api", x_deployment_id="A") for _ in range(40)]
    assert {a.version for a in answers} == {"A", "B"}
    assert all(a.build == a.version and not a.cookies for a in answers)
    flipped = sum(a.version == "B" for a in answers)
    name = 'pinrail_edge_flips_total{cause="mixed",edge="edge-1",from="A",service="app",to="B"}'
    eventually("each is counted", lambda: edge.metrics().get(name) == flipped)


def test_an_evicted_edge_comes_back_on_its_own_once_it_is_up_to_date(world: World, edge: Edge) -> None:
    first(world, edge)
    edge.zk.delete(paths.rostered("edge-1"))
    eventually("it joins again", lambda: edge.zk.get(paths.rostered("edge-1"), watch=False))
    eventually("and is green", lambda: edge.health() == 200)


def test_an_edge_that_is_to_leave_is_red_and_does_not_join_until_it_is_taken_back(world: World, edge: Edge) -> None:
    first(world, edge)
    edge.zk.create(paths.leaving("edge-1"), b"")
    eventually("its page is red", lambda: edge.health() == 503)
    edge.zk.delete(paths.rostered("edge-1"))
    world.plan(PLAN.model_copy(update={"epoch": 2}))
    eventually("it goes on applying plans", lambda: edge.acked(2))
    assert edge.zk.get(paths.rostered("edge-1"), watch=False) is None
    edge.zk.delete(paths.leaving("edge-1"))
    eventually("it joins again", lambda: edge.zk.get(paths.rostered("edge-1"), watch=False))
    eventually("its page is green", lambda: edge.health() == 200)


def test_with_nothing_there_it_says_what_is_missing_and_stops_when_told(edge: Edge) -> None:
    edge.file.write_text(edge.config.model_copy(update={"zookeeper": f"127.0.0.1:{free_port()}/x"}).model_dump_json())
    edge.start("run")
    eventually("it says so", lambda: "no ZooKeeper answers" in edge.log(), 30)
    edge.kill("run", signal.SIGTERM)
    assert "Traceback" not in edge.log()


def test_a_malformed_plan_leaves_the_last_good_one(world: World, edge: Edge) -> None:
    first(world, edge)
    node = edge.zk.get(paths.plan("app"), watch=False)
    assert node
    edge.zk.set(paths.plan("app"), b'{"epoch": 2, "default": "Z"}', node.version)
    eventually("the fault is acknowledged", lambda: "malformed" in (edge.ack().error or ""))
    assert edge.ack().applied == 1
    assert edge.ask("/").build == "A"


def test_counting_goes_on_after_varnishd_was_restarted(world: World, edge: Edge) -> None:
    first(world, edge)

    def counted() -> float:
        return sum(v for m, v in edge.metrics().items() if m.startswith("pinrail_edge_requests_total"))

    eventually("it counts", lambda: edge.ask("/") and counted() > 0)
    edge.kill("server", signal.SIGTERM)
    edge.start("server")
    eventually("it is acknowledged again", lambda: edge.health() == 200 and edge.acked(1), 30)
    before = counted()
    eventually("it counts again", lambda: edge.ask("/") and counted() > before, 30)


def test_a_server_set_that_empties_at_once_is_not_believed(world: World, edge: Edge) -> None:
    first(world, edge)
    world.leave(world.backends[0])
    eventually("it is said", lambda: any("serverset_held" in m and v == 1 for m, v in edge.metrics().items()))
    assert edge.ask("/").status == 200
    assert edge.ack().members == {"A": 1}


def test_services_do_not_touch_each_other(world: World, edge: Edge) -> None:
    first(world, edge)
    world.configure("other", ServiceConfig.model_validate({"match": [{"host": "other.example"}]}))
    world.host("X", "other")
    world.plan(Plan(epoch=1, generation=1, default="X", serving=("X",)), "other")
    eventually("the other is acknowledged", lambda: edge.acked(1, "other"))
    assert edge.ask("/", Host="other.example").version == "X"
    assert edge.ask("/", Host="app.example").version == "A"

    world.zk.delete(paths.config("other"))
    world.zk.delete(paths.plan("other"))
    eventually("that it vanished is said", lambda: "vanished from ZooKeeper" in (edge.ack("other").error or ""))
    assert edge.ask("/", Host="other.example").version == "X"
    world.zk.create(paths.removed("other"), b"")
    eventually("what was removed is let go", lambda: edge.ask("/", Host="other.example").version == "A")
    eventually("its VCL too", lambda: not any("other" in v.name for v in edge.look().vcls))
    assert edge.acked(1)
    assert edge.health() == 200


def test_requests_and_flips_are_counted_once_each(world: World, edge: Edge) -> None:
    first(world, edge)
    plan = offered(world, edge)
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged", lambda: edge.acked(3))

    def total(**labels: str) -> float:
        wanted = [f'{k}="{v}"' for k, v in labels.items()]
        return sum(v for m, v in edge.metrics().items() if "requests_total" in m and all(w in m for w in wanted))

    eventually("the counter counts", lambda: edge.ask("/") and total() > 0)
    start = {o: total(outcome=o) for o in ("exact", "default", "forced")}
    for _ in range(30):
        edge.ask("/api", x_deployment_id="A")
        edge.ask("/api")
        edge.ask("/api", x_deployment_id="never-heard-of")
    expected = {o: n + 30 for o, n in start.items()}
    # Requests before the loop may still be on their way through the log: only what the loop added is compared.
    eventually("all are counted", lambda: all(total(outcome=o) >= n for o, n in expected.items()))
    assert total(outcome="exact", version="A") == 30 + start["exact"]
    flips = {m: v for m, v in edge.metrics().items() if "flips_total" in m}
    assert flips == {
        'pinrail_edge_flips_total{cause="unknown",edge="edge-1",from="unknown",service="app",to="B"}': 30.0
    }
