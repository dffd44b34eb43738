"""What goes wrong on a host, and what users of the other slot notice of it: nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from fleet import paths
from fleet.model import Health, Manifest, SlotState
from fleet.s3 import archive_key, manifest_key
from hostagent.launch import processes
from tests.conftest import ZooKeeperServer, eventually
from tests.hostagent.fleet import Host, Load, Machine, alive, archive, digest_of, kill, pause
from tests.s3_fixtures import S3Server


def first(host: Host) -> dict[str, int]:
    """a1 serves in slot 0; its processes."""
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    return host.pids("a1")


def untouched(host: Host, before: dict[str, int]) -> None:
    assert host.pids("a1") == before
    assert host.member("a1")
    assert host.ask(0)[0] == 200


# -- builds -----------------------------------------------------------------------------------------------------------


def forked(host: Host) -> list[int]:
    """What runs of the service's b1, whoever started it."""
    mark = f"PINRAIL_POOL={host.machine.directory}/run/{host.service}-1".encode()
    return [
        int(p.parent.name)
        for p in Path("/proc").glob("[0-9]*/environ")
        if os.access(p, os.R_OK) and mark in _read(p) and alive(int(p.parent.name))
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_build_that_forks_away_is_none_and_what_it_left_is_ended(host: Host) -> None:
    before = first(host)
    host.configure(host.config.model_copy(update={"pool": host.config.pool.model_copy(update={"start_seconds": 2})}))
    host.publish("b1", "forks")
    with Load(host.endpoint(0)) as load:
        host.enable(2, "b1", "a1")
        host.failed(2, "exit", 40)
        assert forked(host), "a daemon that nobody started"
        host.enable(3, "a1")
        host.reached(3)
    assert load.failures == []
    # The slot is empty once its group is gone; the step that then ends what forked away may be at it still.
    eventually("what forked away is ended", lambda: not forked(host))
    untouched(host, before)


def test_a_build_that_takes_a_port_of_nginx(host: Host) -> None:
    """The other slot's, which is refused to it, and its own slot's, which nginx then cannot have."""
    before = first(host)
    host.publish("b1", "thief")
    words = {0: "Address already in use", 1: "Address already in use"}
    with Load(host.endpoint(0)) as load:
        for serial, slot in enumerate(words, 2):
            environment = {"STEAL": host.endpoint(slot)}
            pool = host.config.pool.model_copy(update={"start_seconds": 3, "environment": environment})
            host.configure(host.config.model_copy(update={"pool": pool}))
            host.enable(serial * 10, "a1")
            host.reached(serial * 10)
            host.enable(serial * 10 + 1, "b1", "a1")
            host.failed(serial * 10 + 1, words[slot], 40)
            untouched(host, before)
    assert load.failures == []


def test_a_config_that_nginx_refuses(host: Host) -> None:
    before = first(host)
    host.publish("b1")
    pool = host.config.pool.model_copy(update={"start_seconds": 3})
    host.configure(host.config.model_copy(update={"pool": pool, "body_bytes": 2**63}))
    host.enable(2, "b1", "a1")
    host.failed(2, 'client_max_body_size" directive invalid value', 40)
    untouched(host, before)
    host.configure(host.config.model_copy(update={"body_bytes": 2**20}))
    host.enable(3, "a1")
    host.reached(3)
    host.enable(4, "b1", "a1")
    host.reached(4)
    untouched(host, before)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"ports": [0, 8001]}, "ports.0"),
        ({"ports": [8000, 65536]}, "ports.1"),
        ({"ports": [8000, 8000]}, "ports"),
        ({"strategy": "blue"}, "strategy"),
        ({"pool": {"processes": 0}}, "pool.processes"),
        ({"pool": {"command": []}}, "pool.command"),
        ({"pool": {"listen": "carrier pigeon"}}, "pool.listen"),
        ({"pool": {"command": ["a\0b"]}}, "pool.command.0"),
        ({"pool": {"environment": {"A B": "c"}}}, "pool.environment.A B"),
        ({"health": {"path": "http://elsewhere/healthz"}}, "health.path"),
        ({"health": {"warm": ["http://elsewhere/"]}}, "health.warm.0"),
    ],
)
def test_an_impossible_config_that_came_past_the_api_is_refused_by_its_key(
    host: Host, fields: dict[str, object], where: str
) -> None:
    """A host that serves goes on; the machine's other services do not notice."""
    eventually("the host knows the service", host.status)
    host._put(paths.config(host.service), json.dumps(fields).encode())
    eventually("it says so", lambda: (s := host.status()) and s.error and f"{where}: " in s.error)
    host.configure()
    eventually("it is well again", lambda: (s := host.status()) and s.error is None)


@pytest.mark.parametrize(
    ("mode", "words"),
    [("sick", "HTTP 503"), ("liar", "it says that it is 'another'"), ("exits", "the build is broken: exits")],
)
def test_a_build_that_never_gets_healthy(host: Host, mode: str, words: str) -> None:
    before = first(host)
    host.configure(host.config.model_copy(update={"pool": host.config.pool.model_copy(update={"start_seconds": 2})}))
    host.publish("b1", mode)
    with Load(host.endpoint(0)) as load:
        host.enable(2, "b1", "a1")
        status = host.failed(2, words)
    assert status.serial == 1
    assert (status.slots[1].build, status.slots[1].state) == ("b1", SlotState.FAILED)
    assert host.member("b1") is None
    assert load.failures == []
    untouched(host, before)
    # The way back: a good one takes its place.
    host.configure(host.config.model_copy(update={"pool": host.config.pool.model_copy(update={"start_seconds": 10})}))
    host.publish("b2")
    host.enable(3, "b2", "a1")
    host.reached(3)
    assert not host.pids("b1")
    untouched(host, before)


def test_a_build_is_not_told_by_the_words_of_the_one_before_it_in_its_slot(host: Host) -> None:
    before = first(host)
    host.configure(host.config.model_copy(update={"pool": host.config.pool.model_copy(update={"start_seconds": 2})}))
    for serial, (build, mode, words) in enumerate((("b1", "exits", "exits"), ("c1", "deaf", "nothing listens on")), 2):
        host.publish(build, mode)
        host.enable(serial, build, "a1")
        said = host.failed(serial, words).error
    assert said and "its log" not in said, "c1 wrote nothing"
    log = host.machine.directory / f"log/{host.service}-1.p0.log"
    assert "the build is broken: exits" in log.with_name(f"{log.name}.1").read_text(), "and nothing is lost"
    untouched(host, before)


def test_an_archive_that_is_not_what_was_promised(host: Host) -> None:
    before = first(host)
    good, bad = archive({"serve.py": "x"}), archive({"serve.py": "y"})
    manifest = Manifest(service=host.service, build="b1", digest=digest_of(good), size=len(bad), unpacked=99, files=9)
    host.store.put_new(archive_key(host.service, "b1"), bad, "application/zstd")
    host.store.put_new(manifest_key(host.service, "b1"), manifest.encode(), "application/json")
    host.digests["b1"] = digest_of(good)
    host.enable(2, "b1", "a1")
    host.failed(2, "its manifest")
    assert not list(host.archives.glob("*.zst*"))
    untouched(host, before)


def test_a_manifest_of_another_digest_than_the_one_enabled(host: Host) -> None:
    before = first(host)
    host.publish("b1")
    host.digests["b1"] = f"sha256:{'0' * 64}"
    host.enable(2, "b1", "a1")
    host.failed(2, "is enabled")
    untouched(host, before)


def test_a_build_that_is_not_in_the_store(host: Host) -> None:
    before = first(host)
    host.digests["b1"] = f"sha256:{'0' * 64}"
    host.enable(2, "b1", "a1")
    host.failed(2, "there is no build b1")
    untouched(host, before)


def test_a_hostile_archive(host: Host) -> None:
    before = first(host)
    host.publish("b1", extra={"../../evil": "x"})
    host.enable(2, "b1", "a1")
    host.failed(2, "../../evil: a path with '..'")
    assert not (host.releases.parent / "evil").exists()
    assert {p.name for p in host.releases.iterdir()} == {"a1"}
    untouched(host, before)


def test_more_builds_than_slots(host: Host) -> None:
    before = first(host)
    host.publish("b1")
    host.publish("c1")
    host.enable(2, "c1", "b1", "a1")
    host.failed(2, "no slot is free for b1")
    untouched(host, before)


def test_a_port_of_another_service_is_said_before_anything_is_stopped_for_it(host: Host) -> None:
    """Both are restarted in place, so what would be stopped is all that there is."""
    other = Host(host.machine, f"{host.service}b")
    for h in (host, other):
        h.configure(h.config.model_copy(update={"strategy": "inplace", "ports": h.ports[:1]}))
    try:
        before = first(host)
        first(other)
        host.configure(host.config.model_copy(update={"ports": other.ports[:1]}))
        host.publish("b1")
        host.enable(2, "b1")
        host.failed(2, f"b1 needs port {other.ports[0]}, which {other.service} has on this host")
        untouched(host, before)
        host.configure(host.config.model_copy(update={"ports": host.ports[:1]}))
        host.reached(2)
    finally:
        other.remove()


def test_a_taken_port(host: Host) -> None:
    before = first(host)
    host.publish("b1")
    with socket.socket() as s:
        s.bind((host.address, host.ports[1]))
        s.listen()
        host.enable(2, "b1", "a1")
        host.failed(2, "Address already in use", 40)
    untouched(host, before)
    host.reached(2, 40)


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_killed_process_comes_back(host: Host) -> None:
    pids = first(host)
    kill(pids["p0"])
    eventually("a new process", lambda: host.pids("a1")["p0"] not in (0, pids["p0"]))
    assert host.ask(0)[0] == 200  # from the other one, if need be
    assert host.pids("a1")["nginx"] == pids["nginx"]
    eventually("full weight again", lambda: (m := host.member("a1")) and m.weight == 2)


def test_below_the_floor_a_pool_is_not_registered(host: Host) -> None:
    host.configure(host.config.model_copy(update={"health": Health(pool_floor=100)}))
    first(host)
    release = host.releases / "a1"
    (release / "mode").write_text("exits")
    kill(host.pids("a1")["p0"])
    eventually("deregistered", lambda: host.member("a1") is None)
    host.failed(1, "exit at once, again and again", 40)
    (release / "mode").write_text("ok")
    eventually("and back", lambda: host.member("a1"), 30)
    host.reached(1)


def test_a_pool_of_which_some_live_is_registered_with_as_many(host: Host) -> None:
    first(host)
    release = host.releases / "a1"
    (release / "mode").write_text("exits")
    kill(host.pids("a1")["p0"])
    eventually("it counts for one", lambda: (m := host.member("a1")) and m.weight == 1)
    eventually("and is said to be less than it should", lambda: (s := host.slot(0)) and s.state == SlotState.DEGRADED)
    assert [host.ask(0)[0] for _ in range(20)] == [200] * 20, "by the one that lives"
    host.failed(1, "exit at once, again and again", 40)
    (release / "mode").write_text("ok")
    eventually("it counts for two", lambda: (m := host.member("a1")) and m.weight == 2, 40)
    host.reached(1)


def test_what_does_not_heed_term_has_its_time_and_is_then_killed_with_its_group(host: Host) -> None:
    host.publish("a1", "stubborn")
    host.enable(1, "a1")
    host.reached(1)
    pool = {pid for name, pid in host.pids("a1").items() if name != "nginx"}
    groups = [pid for pid, (group, _) in processes().items() if group in pool]
    assert len(groups) == 4, "two processes, and what each of them has begun"
    begun = time.monotonic()
    host.enable(2)
    host.reached(2)
    assert time.monotonic() - begun > host.config.pool.stop_seconds
    assert not any(map(alive, groups))


def test_a_killed_nginx_comes_back_although_its_workers_hold_the_port(host: Host) -> None:
    pids = first(host)
    kill(pids["nginx"])
    eventually("a new nginx", lambda: host.pids("a1")["nginx"] not in (0, pids["nginx"]))
    eventually("it runs", lambda: host.processes("a1")["nginx"].state == "RUNNING")
    assert host.pids("a1")["p0"] == pids["p0"]
    eventually("registered again", lambda: host.member("a1"))
    assert host.ask(0)[0] == 200


def test_supervisord_killed_takes_its_pools_along_and_brings_them_back(host: Host) -> None:
    pids = first(host)
    assert host.machine.server
    host.machine.server.kill()
    host.machine.server.wait(10)
    eventually("nothing is left over", lambda: not any(map(alive, pids.values())))
    eventually("no member", lambda: host.member("a1") is None)
    eventually("it says why", lambda: (s := host.status()) and s.error and "pinrail host server" in s.error)
    host.machine.start_server()
    eventually("serving again, without a turn", lambda: host.member("a1"), 30)
    assert host.ask(0)[0] == 200
    host.reached(1)


# -- the agent --------------------------------------------------------------------------------------------------------


def test_a_killed_agent_leaves_the_pools_alone_and_its_successor_registers_them(host: Host) -> None:
    before = first(host)
    with Load(host.endpoint(0)) as load:
        host.machine.kill_agent()
        node = host.zk.get(paths.member(host.service, "a1", host.endpoint(0)), watch=False)
        assert node, "the dead session's node lives on for a while"
        host.machine.start_agent()
        eventually("registered by the new session", lambda: owner(host) not in (0, node.owner))
        pause(3)  # the old session expires, and takes nothing along
        assert host.member("a1")
    assert load.failures == []
    untouched(host, before)
    host.reached(1)


def owner(host: Host) -> int:
    node = host.zk.get(paths.member(host.service, "a1", host.endpoint(0)), watch=False)
    return node.owner if node else 0


def test_members_that_a_killed_agent_left_for_what_runs_no_more_are_removed(host: Host) -> None:
    first(host)
    host.machine.kill_agent()
    stray = paths.member(host.service, "z9", host.endpoint(1))
    member = host.zk.get(paths.member(host.service, "a1", host.endpoint(0)), watch=False)
    assert member
    host.zk.hold_ephemeral(stray, member.data)
    host.machine.start_agent()
    eventually("gone", lambda: host.zk.get(stray, watch=False) is None)


def test_a_second_agent_says_so_and_ends(host: Host) -> None:
    assert host.machine.agent
    eventually("the first one runs", host.status)
    second = host.machine.run("run")
    assert second.wait(20) == 2
    assert f"another agent, process {host.machine.agent.pid}, works in" in host.machine.log()


def test_a_host_of_the_same_name_elsewhere_says_so_and_does_nothing(host: Host, short_tmp: Path, s3: S3Server) -> None:
    """A machine that was copied, its host's file and all: a turn would be both's."""
    before = first(host)
    copy = Machine(
        short_tmp / "n", host.zk, s3.config("hostagent"), address=host.machine.address[:-1] + "7", name=host.name
    )
    node = paths.host(host.service, host.name)
    mine = host.zk.get(node, watch=False)
    try:
        copy.ensure()
        words = f"another agent calls itself {host.name} too, and is at {host.address}: give one of the two another"
        eventually("it says so", lambda: words in copy.log(), 20)
        host.publish("b1")
        host.enable(2, "b1", "a1")
        host.reached(2)
        assert host.member("b1") and host.ask(1)[0] == 200, "by the one that was there first"
        assert copy.supervisor.processes() == ()
        now = host.zk.get(node, watch=False)
        assert mine and now and now.owner == mine.owner
    finally:
        copy.stop()
    untouched(host, before)


def test_an_agent_that_is_told_to_stop_leaves_the_pools_and_the_server_sets(host: Host) -> None:
    before = first(host)
    assert host.machine.agent
    host.machine.agent.terminate()
    assert host.machine.agent.wait(10) == 0
    assert host.member("a1") is None, "the session ended with it"
    assert host.pids("a1") == before and host.ask(0)[0] == 200
    host.machine.start_agent()
    eventually("registered again", lambda: host.member("a1"))


def test_an_aborted_rollout_is_given_up_at_once(host: Host) -> None:
    before = first(host)
    host.publish("b1", "sick")
    host.enable(2, "b1", "a1")
    eventually("it checks the new one", lambda: (s := host.status()) and s.step == "check" and host.pids("b1"))
    host.enable(3, "a1")
    host.reached(3, 10)
    assert not host.pids("b1")
    untouched(host, before)


def test_a_new_serial_whose_turn_has_not_come_stops_no_repair(host: Host) -> None:
    pids = first(host)
    host.publish("b1")
    host.enable(2, "b1", "a1", turn=False)
    host.machine.kill_agent()
    kill(pids["nginx"])
    host.machine.start_agent()
    eventually("registered again", lambda: host.member("a1"))
    assert not host.pids("b1")


def test_zookeeper_away_and_back(host: Host, zookeeper_server: ZooKeeperServer) -> None:
    before = first(host)
    with Load(host.endpoint(0)) as load:
        zookeeper_server.stop()
        pause(3)
        assert host.pids("a1") == before
        zookeeper_server.start()
        eventually("registered", lambda: owner(host), 30)
        host.reached(1)
    assert load.failures == []
    untouched(host, before)


def test_a_malformed_payload_is_said_and_stops_nothing(host: Host) -> None:
    before = first(host)
    host._put(paths.enabled(host.service), b'{"serial": "x"}')
    eventually("it says so", lambda: (s := host.status()) and s.error and "cannot be read" in s.error)
    untouched(host, before)
    host.enable(2, "a1")
    host.reached(2)
    untouched(host, before)


def test_the_server_says_when_it_runs_already(host: Host) -> None:
    second = host.machine.run("server")
    assert second.wait(20) == 2
    assert "runs already" in (host.machine.directory / "server.log").read_text()


def test_a_directory_that_needs_quoting_is_refused(tmp_path: Path, machine: Machine, s3: S3Server) -> None:
    other = Machine(tmp_path, machine.zk, s3.config("x"), address=machine.address, directory_key="/tmp/a b")
    assert other.run("run").wait(20) == 2
    assert "directory = '/tmp/a b': must be absolute" in other.log()
