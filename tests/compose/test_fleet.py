"""The compose file as it is shipped: up, a first deploy, releases under load, and cut apart at every step of a release.

One fleet for all of it. PINRAIL_COMPOSE=all tries every kind of hurt at every step, and an upgrade of Pinrail itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from bench import engine
from bench.engine import Project
from fleet.model import RolloutState
from tests.compose.yard import Yard
from tests.faults.rollout import Rollout, builds

pytestmark = pytest.mark.timeout(1800)

S = RolloutState
STEPS = ("withdraw", "ack", "install", "offer", "warm", "switch")
HURT, WELL = "edge-2", "edge-1"
HOSTS = ("host-1", "host-2", "host-3", "host-4")
ALL = os.environ.get("PINRAIL_COMPOSE") == "all"
#: What a container that was told to stop may end with: Java ends so by itself.
ENDED = ("exited 0", "exited 143")
#: Seconds that it takes until nobody is sent any more to what cannot be reached: health checks, on a busy machine.
EDGE_NOTICED, HOST_NOTICED = 6.0, 8.0


@pytest.fixture(scope="module")
def project(images: None) -> Iterator[Project]:
    with engine.project(engine.environment()) as made:
        made("up", "-d")
        yield made
    assert made.left() == []


@pytest.fixture(scope="module")
def yard(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """With two versions served, and users."""
    project.green()
    made = Yard(project, tmp_path_factory.mktemp("yard"))
    try:
        made.first()
        made.users_come()
        yield made
    finally:
        made.close()


@pytest.fixture
def whole(yard: Yard) -> Iterator[Yard]:
    yield yard
    yard.mend()


# -- what the page promises -------------------------------------------------------------------------------------------


def test_it_comes_up_green_and_keeps_its_secrets_apart(project: Project) -> None:
    project.green()
    assert project.states()["secrets"] == "exited 0"
    for part, sees in {"edge-1": "edge", "host-1": "host", "barrier-1": "barrier", "s3": "s3"}.items():
        seen = engine.docker("exec", project.container(part), "sh", "-c", "find /secrets -type f")
        assert {line.split("/")[2] for line in seen.splitlines()} == {sees}, part
    for part in set(project.states()) - {"secrets", *HOSTS}:
        assert engine.docker("exec", project.container(part), "id", "-u") == "10001", part


def test_a_first_deploy_and_a_release_under_load(project: Project) -> None:
    """By the commands of docs/compose.md."""
    project.green()
    project("run", "--rm", "tools", "container", "first")
    answer = httpx.get(f"http://127.0.0.1:{project.environment['PINRAIL_PORT']}/api/feed", trust_env=False)
    assert (answer.status_code, answer.json()["build"]) == (200, "a1")
    project("run", "--rm", "-T", "tools", "deploy", "ngapp", "b2", "--wait")
    project("run", "--rm", "-T", "tools", "rollback", "ngapp")
    shown = project("run", "--rm", "-T", "tools", "status").stdout
    assert "ngapp: default a1, also served b2" in shown, shown
    assert all(part in shown for part in ("edge-3", *HOSTS, "barrier-2")) and "away" not in shown, shown
    project("run", "--rm", "-T", "tools", "container", "whole")
    words = ("container", "releases", "--releases", "1", "--browsers", "10", "--json")
    done = project("run", "--rm", "-T", "tools", *words, check=False, seconds=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["ok"], found["broken"]
    for release in found["releases"]:
        assert (release["fault"], release["back"], release["failed"]) == (0, 0, 0)
        print(json.dumps(release))  # noqa: T201  figures for whoever asks with -s


def test_the_page_is_where_its_address_says(project: Project) -> None:
    project.green()
    shown = project("run", "--rm", "-T", "tools", "page", "--role", "read").stdout.strip()
    address, _, token = shown.partition("/#token=")
    assert address == f"http://127.0.0.1:{project.environment['PINRAIL_BARRIER_1_PORT']}"
    with httpx.Client(base_url=address, trust_env=False) as browser:
        assert "<title>" in browser.get("/").text
        told = {"authorization": f"Bearer {token}"}
        assert browser.get("/v1/services", headers=told).status_code == 200
        assert browser.get("/v1/services").status_code == 401


def test_what_is_not_whole_is_said_by_name(project: Project) -> None:
    project.green()
    project("stop", "edge-2", "zk-3")
    try:
        done = project("run", "--rm", "-T", "tools", "container", "whole", "--timeout", "2", check=False)
        assert done.returncode == 3, done.stderr
        assert "edge-2 is away" in done.stderr and "zk-3:2181: " in done.stderr, done.stderr
    finally:
        project("start", "edge-2", "zk-3")
    project("run", "--rm", "-T", "tools", "container", "whole")


def test_a_wrong_token_is_said_in_one_line(project: Project) -> None:
    project.green()
    wrong = ("-e", "PINRAIL_URL=http://barrier-1:8300", "-e", "PINRAIL_TOKEN=wrong")
    done = project("run", "--rm", "-T", *wrong, "tools", "rollback", "ngapp", check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("pinrail: ")]
    assert (done.returncode, len(said)) == (2, 1), done.stdout + done.stderr
    assert "token" in said[0]


# -- the load balancer itself ------------------------------------------------------------------------------------------


def test_the_load_balancer_reads_its_configuration_anew_and_loses_nothing(whole: Yard) -> None:
    yard = whole
    before = yard.balancer_workers()
    with yard.clients.unharmed(excused=0):
        yard.project("kill", "-s", "USR2", "balancer")
        yard.until("another process took over", lambda: yard.balancer_workers() - before)
        yard.until("the one before has ended", lambda: not yard.balancer_workers() & before)
        yard.well()


def test_a_load_balancer_that_is_restarted_ends_what_is_under_way(whole: Yard) -> None:
    """Nobody comes in until it is back: a connection that is refused is excused, an answer that breaks off is not."""
    yard = whole
    with yard.clients.unharmed() as found:
        with yard.clients.closed():
            again(yard, "balancer")
        there = yard.clients.tell(do="clock")["requests"] + 50
        yard.until("users are back", lambda: yard.clients.tell(do="clock")["requests"] > there)
    assert all("Cannot connect" in said for said in found["why"]), found["why"]


def test_edges_that_are_all_silent_for_a_while_are_waited_for(whole: Yard) -> None:
    """A machine that has no time for any of them: what users get is late, and not an error."""
    yard = whole
    with yard.clients.unharmed(excused=0):
        boxes = [yard.project.container(e.id) for e in yard.state.edges]
        with frozen(boxes):
            for edge in yard.state.edges:
                yard.until(f"the load balancer gives {edge.id} up", lambda e=edge.id: not yard.used(e))
            there = yard.clients.tell(do="clock")["requests"]
        yard.until("users go on", lambda: yard.clients.tell(do="clock")["requests"] > there + 50)


@contextmanager
def frozen(boxes: Sequence[str]) -> Iterator[None]:
    try:
        engine.docker("pause", *boxes)
        yield
    finally:
        engine.docker("unpause", *boxes)


# -- cut apart --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hurt:
    """What the engine does to a part, and what undoes it."""

    name: str
    part: str
    #: Networks that it is cut from; none: it is frozen.
    networks: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Does a release wait for it: is it an edge that ZooKeeper no longer hears?"""
        return self.part.startswith("edge") and self.networks != ("front",) and self.networks != ("back",)

    @property
    def unreachable(self) -> bool:
        """May requests be under way to it?"""
        if self.part.startswith("edge"):
            return self.networks != ("control",)
        return self.part.startswith("host") and self.networks != ("control",)

    def missed(self, yard: Yard, part: str) -> bool:
        """Has whoever should notice done so? What is hurt for less than that shows nothing."""
        kind = part.partition("-")[0]
        if kind == "edge":
            return not yard.used(part) if self.unreachable else not yard.ack(part)
        if kind == "host" and self.unreachable:
            default = yard.default
            return all(yard.ack(e.id)["healthy"][default] < len(HOSTS) for e in yard.state.edges)
        if kind == "host":
            return part not in yard.hosts()
        return (keeper(yard) if kind == "zk" else yard.leader()) != part

    @contextmanager
    def done(self, yard: Yard) -> Iterator[None]:
        part = yard.leader() if self.part == "leader" else self.part
        part = keeper(yard) if self.part == "keeper" else part
        if self.unreachable:
            edge = part.startswith("edge")
            yard.clients.hurt(part if edge else None, EDGE_NOTICED if edge else HOST_NOTICED)
        with yard.without(part) if part.startswith("barrier") else contextlib.nullcontext():
            if self.networks:
                yard.cut(part, *self.networks)
            else:
                yard.pause(part)
            try:
                yard.until(f"{part} is missed", lambda: self.missed(yard, part))
                yield
            finally:
                if self.networks:
                    yard.join(part)
                else:
                    yard.unpause(part)
        yard.well()


def keeper(yard: Yard) -> str:
    """The leader of the three ZooKeeper servers."""

    def found() -> str | None:
        for n in (1, 2, 3):
            box = yard.project.container(f"zk-{n}")
            words = "exec 3<>/dev/tcp/127.0.0.1/2181; echo srvr >&3; cat <&3"
            if "Mode: leader" in engine.docker("exec", box, "timeout", "5", "bash", "-c", words, check=False):
                return f"zk-{n}"
        return None

    return str(yard.until("one of them leads", found))


KINDS = {
    h.name: h
    for h in (
        Hurt("edge-frozen", HURT),
        Hurt("edge-cut-from-control", HURT, ("control",)),
        Hurt("edge-cut-from-balancer", HURT, ("front",)),
        Hurt("edge-cut-from-hosts", HURT, ("back",)),
        Hurt("edge-cut-off", HURT, ("front", "back", "control")),
        Hurt("nginx-edge-frozen", "edge-3"),
        Hurt("nginx-edge-cut-off", "edge-3", ("front", "back", "control")),
        Hurt("host-frozen", "host-4"),
        Hurt("host-cut-from-control", "host-4", ("control",)),
        Hurt("host-cut-off", "host-4", ("back", "control")),
        Hurt("barrier-leader-frozen", "leader"),
        Hurt("barrier-leader-cut-off", "leader", ("control",)),
        Hurt("zookeeper-leader-frozen", "keeper"),
        Hurt("zookeeper-leader-cut-off", "keeper", ("control",)),
    )
}
# In CI each step once, and each kind of part.
CHOSEN = {
    "withdraw": KINDS["edge-cut-from-control"],
    "ack": KINDS["edge-cut-from-balancer"],
    "install": KINDS["host-cut-off"],
    "offer": KINDS["zookeeper-leader-frozen"],
    "warm": KINDS["barrier-leader-cut-off"],
    "switch": KINDS["edge-frozen"],
}
COLUMNS = {"chosen": CHOSEN, **({name: dict.fromkeys(STEPS, h) for name, h in KINDS.items()} if ALL else {})}


@pytest.mark.parametrize("column", COLUMNS)
def test_cut_apart_at_every_step(whole: Yard, column: str) -> None:
    yard, by = whole, COLUMNS[column]

    def at(step: str) -> contextlib.AbstractContextManager[None]:
        yard.step = f"{step}: {by[step].name}"
        return by[step].done(yard)

    with yard.clients.unharmed() as found:
        with yard.stream(WELL, yard.plan.serving[-1]):
            with at("withdraw"):
                rollout = Rollout(yard, yard.publish(), hold=True)
                stands(yard, rollout, S.WITHDRAWING, by["withdraw"])
            with at("ack"):
                stands(yard, rollout, S.WITHDRAWING, by["ack"])
            yard.close_gate()
        yard.until("hosts install", lambda: rollout.now().state is S.INSTALLING)
        with at("install"):
            stands(yard, rollout, S.INSTALLING, None)
        with at("offer"):
            yard.open_gate()
            if by["offer"].blocks:
                stands(yard, rollout, S.OFFERING, by["offer"])
        rollout.waits(S.RAMPING, "ramp")
        with at("warm"):
            stands(yard, rollout, S.RAMPING, by["warm"])
        rollout.waits(S.RAMPING, "ramp")
        with at("switch"):
            rollout.ask("resume")
            if by["switch"].blocks:
                yard.until("it waits for the edge", lambda: by["switch"].part in rollout.missing())
        rollout.over(S.SWITCHED)
    print(column, json.dumps({k: v for k, v in found.items() if k != "broken"}))  # noqa: T201


def stands(yard: Yard, rollout: Rollout, state: RolloutState, hurt: Hurt | None) -> None:
    """It stays where it is, and names the edge that is missing. No host has let go of what is served."""
    if hurt is not None and hurt.blocks:
        yard.until("it waits for the edge that is hurt", lambda: hurt.part in rollout.missing())
    yard.until(f"it is {state.value}", lambda: rollout.now().state is state)
    if state is S.WITHDRAWING:
        assert all(builds(h) == set(rollout.before.serving) for h in yard.hosts().values())
    assert yard.plan.default == rollout.default


# -- one after the other ----------------------------------------------------------------------------------------------


def again(yard: Yard, part: str) -> None:
    """In order: stopped, started, green; and the fleet agreed again before anything else is touched."""
    yard.project("restart", part, seconds=200)
    back(yard, part)


def back(yard: Yard, part: str) -> None:
    yard.until(f"{part} is green", lambda: yard.project.states()[part] == "healthy")
    if part.startswith("host"):
        yard.kept_open()
    yard.well()


@pytest.mark.skipif(not ALL, reason="PINRAIL_COMPOSE=all restarts every container, which takes minutes")
def test_every_container_is_restarted_during_a_rollout(whole: Yard) -> None:
    yard = whole
    kinds = ["zk", "s3", "barrier", "prometheus", "alertmanager", "edge", "host", "balancer"]
    parts = [s for s in yard.project.states() if s != "secrets"]
    parts.sort(key=lambda s: kinds.index(s.split("-")[0]))
    with yard.clients.unharmed() as found:
        rollout = Rollout(yard, yard.publish(), hold=True)
        rollout.waits(S.RAMPING, "ramp")
        for part in parts:
            yard.step = f"restart of {part}"
            with yard.clients.closed() if part == "balancer" else contextlib.nullcontext():
                again(yard, part)
        rollout.ask("resume")
        rollout.over(S.SWITCHED)
    print("restarts", len(parts), json.dumps({k: v for k, v in found.items() if k != "broken"}))  # noqa: T201


@pytest.mark.skipif(not ALL, reason="PINRAIL_COMPOSE=all upgrades Pinrail itself, which takes minutes")
def test_pinrail_is_upgraded_during_a_rollout(whole: Yard) -> None:
    """Every part from one image to the next, mid-rollout and under load."""
    yard, new = whole, f"{engine.TAG}-next"
    engine.build(version=new)
    with yard.clients.unharmed() as found:
        rollout = Rollout(yard, yard.publish(), hold=True)
        rollout.waits(S.RAMPING, "ramp")
        yard.project.environment["PINRAIL_TAG"] = new
        for part in ("zk-1", "zk-2", "zk-3", "s3", "barrier-1", "barrier-2", *HOSTS, "edge-1", "edge-2", "edge-3"):
            yard.step = f"upgrade of {part}"
            yard.project("up", "-d", "--no-deps", part)
            if part.startswith("host"):
                yard.kept_open()
            yard.project("run", "--rm", "-T", "tools", "container", "whole")
            yard.well()
            assert engine.docker("exec", yard.project.container(part), "cat", "/opt/pinrail/app/VERSION") == new
        rollout.ask("resume")
        rollout.over(S.SWITCHED)
    print("upgrade", json.dumps({k: v for k, v in found.items() if k != "broken"}))  # noqa: T201


def test_it_ends_and_leaves_nothing(yard: Yard, project: Project) -> None:
    """The last of this file: the fleet is gone afterwards. Told to stop, every container does; none is killed."""
    yard.clients.stop()
    project("stop", seconds=300)
    assert {p: s for p, s in project.states().items() if s not in ENDED} == {}
    project("down", "-v", seconds=300)
    assert project.left() == []
