"""Builds on a real host: supervisord, nginx, S3 and ZooKeeper are the real ones, the agent is a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

import pytest

from fleet import paths
from fleet.config import load
from fleet.model import SlotState
from hostagent.config import HostConfig
from hostagent.layout import Layout
from hostagent.slots import Slots
from hostagent.supervisor import Supervisor
from hostagent.users import Users
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.hostagent.fleet import Host, Load, Machine, alive, pause
from tests.s3_fixtures import KEY, SECRET, S3Server, write_credentials


def test_a_build_becomes_a_registered_member(host: Host) -> None:
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    member = host.member("a1")
    assert member and (member.serviceEndpoint.host, member.serviceEndpoint.port) == (host.address, host.ports[0])
    assert member.weight == 2
    status, headers, body = host.ask(0)
    assert status == 200 and json.loads(body)["build"] == "a1"
    assert headers.get_all("x-served-version") == ["a1"]
    assert headers["x-served-by"] == "host-1"
    slot = host.slot(0)
    assert slot and (slot.build, slot.state, slot.live) == ("a1", SlotState.SERVING, 2)
    assert (host.machine.directory / f"slots/{host.service}/0/current").resolve() == host.releases / "a1"
    assert list((host.archives).iterdir()) == []


def test_the_next_build_goes_into_the_other_slot_and_the_first_notices_nothing(host: Host) -> None:
    host.publish("a1")
    host.publish("b1")
    host.publish("c1")
    host.enable(1, "a1")
    host.reached(1)
    before = host.pids("a1")
    with Load(host.endpoint(0)) as load:
        host.enable(2, "b1", "a1")
        host.reached(2)
        assert host.member("a1") and host.member("b1")
    assert load.failures == [] and set(load.answers) == {"a1"} and len(load.answers) > 50
    assert host.pids("a1") == before
    before = host.pids("b1")
    with Load(host.endpoint(1)) as load:
        host.enable(3, "c1", "b1")
        host.reached(3)
    assert load.failures == [] and set(load.answers) == {"b1"}
    assert host.pids("b1") == before
    assert host.member("a1") is None and not host.pids("a1")
    assert json.loads(host.ask(0)[2])["build"] == "c1"
    eventually("the archive of nobody is gone", lambda: not list((host.archives).iterdir()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else; everybody else runs all tests so")
def test_as_an_ordinary_user(machine: Machine, s3: S3Server) -> None:
    with tempfile.TemporaryDirectory(prefix="pinrail-") as d:
        credentials = write_credentials(Path(d) / "s3", KEY, SECRET)
        config = s3.config("hostagent").model_copy(update={"credentials": credentials})
        other = Machine(Path(d), machine.zk, config, address=machine.address[:-1] + "2", user="nobody", name="host-2")
        for path in (Path(d), credentials):
            shutil.chown(path, "nobody")
        # This test's own Python may lie where only root can read.
        other.python = "/usr/bin/python3"
        other.environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        can = [other.python, "-c", "import hostagent.agent, fleet.s3, supervisor"]
        if subprocess.run(can, user="nobody", env=other.environment, stderr=subprocess.DEVNULL, timeout=90).returncode:
            pytest.skip("an ordinary user cannot run /usr/bin/python3 with what is installed here")
        try:
            other.ensure()
            host = Host(other, "ordinary")
            host.configure()
            host.publish("a1")
            host.enable(1, "a1")
            host.reached(1)
            assert host.ask(0)[0] == 200
            nginx = host.pids("a1")["nginx"]
            assert Path(f"/proc/{nginx}").owner() == "nobody"
        finally:
            host.enable(2)
            other.stop()


def test_each_process_is_warmed_and_then_gives_its_good_answers_before_anybody_asks_it(host: Host) -> None:
    health = host.config.health.model_copy(update={"warm": ("/warm?1", "/warm?2"), "good": 3})
    host.configure(host.config.model_copy(update={"health": health}))
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    asked: dict[int, list[str]] = {}

    def both() -> bool:
        said = json.loads(host.ask(0)[2])
        asked.setdefault(said["pid"], said["asked"])
        return len(asked) == 2

    eventually("both processes answer", both)
    first = ["/warm?1", "/warm?2", *3 * ["/healthz"]]
    assert all(paths[:5] == first and "/warm?1" not in paths[5:] for paths in asked.values()), asked


def test_a_canary_runs_what_is_enabled_for_canaries_and_else_what_all_run(
    short_tmp: Path, machine: Machine, s3: S3Server
) -> None:
    """Two services on one host, whose builds have the same names."""
    canary = Machine(
        short_tmp / "r",
        machine.zk,
        s3.config("hostagent"),
        address=machine.address[:-1] + "6",
        name="host-6",
        keys='role = "canary"',
    )
    canary.ensure()
    one, other = Host(canary, "roles"), Host(canary, "roles2")
    try:
        for service in (one, other):
            service.configure()
            for build in ("a1", "b1"):
                service.publish(build)
            service.enable(1, "a1")
        one.enable(2, "b1", "a1", role="canary")
        one.reached(2)
        other.reached(1)
        status = one.status()
        assert status and status.role == "canary"
        assert one.member("b1") and one.member("a1") and other.member("a1") and not other.member("b1")
        slots = {json.loads(one.ask(n)[2])["build"] for n in (0, 1)}
        assert slots == {"a1", "b1"} and json.loads(other.ask(0)[2])["build"] == "a1"
        before = one.pids("a1"), other.pids("a1")
        one.enable(3, "a1", role="canary")
        one.reached(3)
        assert not one.member("b1") and (one.pids("a1"), other.pids("a1")) == before
    finally:
        for service in (one, other):
            service.tell()
            service.remove()
        canary.stop()


def test_without_a_turn_nothing_happens(host: Host) -> None:
    host.publish("a1")
    host.publish("b1")
    host.enable(1, "a1", turn=False)
    eventually("the host shows itself, so that it can be given a turn", host.status)
    pause(1.5)  # three cycles
    status = host.status()
    assert status and (status.serial, status.step, status.error) == (0, None, None)
    assert [s.state for s in status.slots] == [SlotState.EMPTY, SlotState.EMPTY]
    assert not host.running() and not host.releases.exists()
    host.turn(1)
    host.reached(1)
    before = host.pids("a1")
    host.enable(2, "b1", turn=False)
    pause(1.5)
    assert host.pids("a1") == before and host.member("a1") and not host.pids("b1")


def test_no_second_version_where_the_service_is_restarted_in_place(host: Host) -> None:
    host.configure(host.config.model_copy(update={"strategy": "inplace", "ports": host.ports[:1]}))
    host.publish("a1")
    host.publish("b1")
    host.enable(1, "a1")
    host.reached(1)
    old = host.pids("a1")
    host.enable(2, "b1")
    host.reached(2)
    assert host.member("a1") is None and not any(map(alive, old.values()))
    member = host.member("b1")
    assert member and member.serviceEndpoint.port == host.ports[0]
    assert json.loads(host.ask(0)[2])["build"] == "b1"
    status = host.status()
    assert status and len(status.slots) == 1


def test_draining_waits_for_requests_that_began_before(host: Host) -> None:
    host.configure(host.config.model_copy(update={"strategy": "inplace", "ports": host.ports[:1]}))
    host.publish("a1")
    host.publish("b1")
    host.enable(1, "a1")
    host.reached(1)
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(host.ask(0, "/slow?s=2.5")[0]))
    slow.start()
    host.enable(2, "b1")
    eventually("the old member left", lambda: host.member("a1") is None)
    host.reached(2)
    slow.join(10)
    assert answers == [200]


def test_what_is_enabled_no_more_is_stopped_and_old_releases_go(host: Host) -> None:
    host.configure(host.config.model_copy(update={"keep": 1}))
    for build in ("a1", "b1", "c1"):
        host.publish(build)
    for serial, build in enumerate(("a1", "b1", "c1"), 1):
        host.enable(serial, build)
        host.reached(serial)
    eventually("one release is kept beside the one that runs", lambda: releases(host) == {"b1", "c1"})
    host.enable(4)
    host.reached(4)
    assert host.running() == []
    assert host.conf() == []


def test_a_removed_service_is_stopped_and_a_forgotten_one_is_not(host: Host) -> None:
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    before = host.pids("a1")

    def vanish() -> None:
        host.zk.delete(paths.config(host.service))

    vanish()  # as if ZooKeeper had lost it: nobody said that it should go
    eventually("the agent sees it", lambda: f"{host.service}: has no config yet" in host.machine.log())
    assert host.pids("a1") == before
    host.zk.create(paths.removed(host.service), b"")
    eventually("its pools are stopped", lambda: host.running() == [] and host.conf() == [])
    eventually("it is reported no more", lambda: host.status() is None and host.member("a1") is None)

    host.zk.delete(paths.removed(host.service))
    host.configure()
    host.enable(2, "a1")
    host.reached(2)
    assert host.ask(0)[0] == 200


def releases(host: Host) -> set[str]:
    return {p.name for p in (host.releases).iterdir()}


def test_a_pool_on_ports_with_its_own_environment(host: Host) -> None:
    pool = host.config.pool.model_copy(
        update={"listen": "port", "environment": {"GREETING": 'a "b" %(c)s ; $d # e\nf', "PINRAIL_VERSION": "no"}}
    )
    host.configure(host.config.model_copy(update={"pool": pool}))
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    said = json.loads(host.ask(0)[2])
    assert (said["env"], said["build"], said["host"]) == ('a "b" %(c)s ; $d # e\nf', "a1", "host-1")
    assert said["leak"] is None, "what the host's server has in its own environment is not for services"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a service as somebody else")
def test_each_service_is_a_user_of_its_own_that_can_change_nothing_of_its_release(host: Host, machine: Machine) -> None:
    """And its post-install too, which makes what then is nobody's to change."""
    install = "import os, pathlib; pathlib.Path(os.environ['PINRAIL_INSTALL'], 'who').write_text(str(os.getuid()))\n"
    pool = host.config.pool.model_copy(update={"install": ("{python}", "install.py")})
    other = Host(machine, f"{host.service}b")
    for h in (host, other):
        h.configure(h.config.model_copy(update={"pool": pool}))
        h.publish("a1", extra={"install.py": install})
        h.enable(1, "a1")
    for h in (host, other):
        h.reached(1)
    uids = [json.loads(h.ask(0)[2])["uid"] for h in (host, other)]
    assert len(set(uids)) == 2 and all(70000 <= uid < 80000 for uid in uids)
    mine, theirs = host.releases / "a1" / "serve.py", other.releases / "a1" / "serve.py"
    (venv,) = [v for v in host.venvs() if (v / "who").exists() and (v / "who").read_text() == str(uids[0])]
    for path, flag, allowed in (
        *((mine, "-r", True), (mine, "-w", False), (mine.parent, "-w", False)),
        *((theirs, "-r", False), (venv / "who", "-r", True), (venv / "who", "-w", False), (venv, "-w", False)),
        (machine.directory / "host.toml", "-w", False),
    ):
        done = subprocess.run(["test", flag, str(path)], user=uids[0], group=uids[0], extra_groups=[], check=False)
        assert (done.returncode == 0) is allowed, f"{flag} {path}"
    other.remove()


def test_a_changed_config_leaves_running_pools_alone(host: Host) -> None:
    host.publish("a1")
    host.publish("b1")
    host.enable(1, "a1")
    host.reached(1)
    before = host.pids("a1")
    pool = host.config.pool.model_copy(update={"processes": 1})
    port = free_port(host.address)
    host.configure(host.config.model_copy(update={"pool": pool, "ports": (port, host.ports[1])}))
    host.enable(2, "b1", "a1")
    host.reached(2)
    assert host.pids("a1") == before
    assert len(host.pids("b1")) == 2  # one process and nginx
    member = host.member("a1")
    assert member and member.serviceEndpoint.port == host.ports[0]


def test_metrics_say_what_runs(host: Host) -> None:
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)

    def text() -> str:
        with urllib.request.urlopen(f"http://{host.machine.metrics}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    where = f'service="{host.service}",slot="0"'
    line = f'pinrail_host_slot_info{{host="host-1",{where},state="serving",version="a1"}} 1.0'
    eventually("the slot is counted as serving", lambda: line in text())
    assert f'pinrail_host_pool_processes{{host="host-1",kind="live",{where},version="a1"}} 2.0' in text()
    assert "pinrail_host_fetch_seconds_count" in text()


def test_filling_a_slot_that_runs_changes_nothing(host: Host) -> None:
    """It would be given other ports than those that its processes listen on."""
    host.configure(
        host.config.model_copy(update={"pool": host.config.pool.model_copy(update={"listen": "port", "processes": 1})})
    )
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    config = load(host.machine.directory / "host.toml", HostConfig)
    layout = Layout.of(config)
    before = host.pids("a1"), layout.spec(host.service, 0).read_bytes()
    Slots(config, layout, host.supervisor, Users(config, layout)).start(host.service, 0, "a1", host.config)
    assert (host.pids("a1"), layout.spec(host.service, 0).read_bytes()) == before


def test_what_supervisord_passed_over_is_told_to_stop_again(host: Host) -> None:
    """It skips a process that has exited just then, or was not begun yet, and starts it a moment later."""
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    host.machine.kill_agent()

    class PassesOver(Supervisor):
        told = 0

        def stop(self, group: str) -> None:
            self.told += 1
            if self.told > 1:
                super().stop(group)

    config = load(host.machine.directory / "host.toml", HostConfig)
    layout = Layout.of(config)
    Slots(config, layout, PassesOver(layout.supervisor_socket), Users(config, layout)).stop(host.service, 0, "a1")
    assert host.running() == []
