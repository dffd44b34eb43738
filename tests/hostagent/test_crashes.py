"""The agent killed wherever it may be, or its session taken away there: what it was doing ends in the same place."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import paths
from fleet.signing import PrivateKey
from pipeline.publish import publish
from tests.conftest import eventually
from tests.hostagent.fleet import SERVE, Host, Load, Machine, alive
from tests.s3_fixtures import S3Server

#: In the order in which an install of c1 into a1's slot comes by them: whose, and which.
POINTS = (
    ("c1", "fetch.before"),
    ("c1", "trust.kept"),
    *(("c1", f"fetch.{p}") for p in ("promised", "piece", "verified")),
    *(("c1", f"unpack.{p}") for p in ("before", "named", "held", "kept")),
    *(("c1", f"prepare.{p}") for p in ("before", "filled")),
    *(("a1", f"stop.{p}") for p in ("before", "unlisted", "stopped")),
    *(("c1", f"start.{p}") for p in ("before", "described", "written")),
    ("c1", "check.before"),
    *(("c1", f"register.{p}") for p in ("before", "after")),
    *(("c1", f"reached.{p}") for p in ("before", "after")),
)
KEY = PrivateKey.generate()
BLOB = random.Random(5).randbytes(600_000)


@pytest.fixture(scope="module")
def signed(short_tmp: Path, machine: Machine, s3: S3Server) -> Iterator[Machine]:
    """A host that asks for signatures and keeps archives."""
    made = Machine(
        short_tmp / "c",
        machine.zk,
        s3.config("hostagent"),
        address=machine.address[:-1] + "5",
        name="host-5",
        keys=f'signing_keys = ["{KEY.public.text}"]\nkeep_archives = 2',
    )
    yield made
    made.stop()


@pytest.fixture
def host(signed: Machine, request: pytest.FixtureRequest) -> Iterator[Host]:
    signed.ensure()
    made = Host(signed, "crash" + str(abs(hash(request.node.name)) % 10**6))
    install = ("sh", "-c", 'echo made > "$PINRAIL_INSTALL/it"')
    made.configure(made.config.model_copy(update={"pool": made.config.pool.model_copy(update={"install": install})}))
    yield made
    made.tell()
    made.machine.ensure()
    made.remove()


def put(host: Host, build: str, tree: Path) -> None:
    """As a pipeline publishes: signed, and of frames, most of which every build has."""
    tree.mkdir()
    (tree / "serve.py").write_text(SERVE)
    (tree / "mode").write_text("ok")
    (tree / "blob").write_bytes(BLOB)
    (tree / "own").write_bytes(random.Random(build).randbytes(100_000))
    host.digests[build] = publish(host.store, tree, host.service, build, key=KEY).manifest.digest
    shutil.rmtree(tree)


def installed(host: Host, new: int) -> None:
    """c1 is in the slot, and nothing of the way there is left."""
    assert json.loads(host.ask(new)[2])["build"] == "c1"
    current = host.machine.directory / f"slots/{host.service}/{new}/current"
    assert current.resolve() == host.releases / "c1"
    assert {p.name for p in host.releases.iterdir()} == {"a1", "b1", "c1"}
    assert (host.releases / "c1/blob").read_bytes() == BLOB
    eventually("nothing is left of the download", lambda: list(host.archives.iterdir()) == [])


def two_run(host: Host, tmp_path: Path) -> tuple[int, int, dict[str, int]]:
    """a1 and b1 serve, c1 is published: the slot of a1, that of b1, and the processes of b1."""
    for build in ("a1", "b1", "c1"):
        put(host, build, tmp_path / build)
    host.enable(1, "b1", "a1")
    host.reached(1)
    slot = host.slot(0)
    assert slot
    return (*((0, 1) if slot.build == "a1" else (1, 0)), host.pids("b1"))


@pytest.mark.timeout(300)
def test_killed_at_every_boundary_of_an_install_it_ends_in_the_same_place(host: Host, tmp_path: Path) -> None:
    """Each agent finds what the one before it left, gets one boundary further, and dies there."""
    others = set(host.venvs())
    new, kept, before = two_run(host, tmp_path)
    agents = []
    with Load(host.endpoint(kept)) as load:
        host.machine.kill_agent()
        host.enable(2, "c1", "b1")
        for build, point in POINTS:
            host.machine.start_agent(f"{host.service}:{build}:{point}")
            assert host.machine.agent
            assert host.machine.agent.wait(25) == -signal.SIGKILL, point
            agents.append(host.machine.agent.pid)
        host.machine.start_agent()
        host.reached(2)
        eventually("registered by the living session", lambda: host.member("b1") and host.member("c1"))
    assert load.failures == [] and set(load.answers) == {"b1"} and len(load.answers) > 100
    assert host.pids("b1") == before
    assert host.member("a1") is None and not host.pids("a1")
    installed(host, new)
    venvs = [p for p in host.venvs() if p not in others]
    assert len(venvs) == 3 and all((p / "it").exists() for p in venvs), "one of each build, all complete"
    assert not [p for p in venvs[0].parent.iterdir() if p.name.startswith(".")], "nothing half made is left"
    assert len(set(agents)) == len(POINTS)


#: Dies before the so many-th thing that it does to the host's directory.
_DIES = """
import os, signal, sys
left = {count}
done = {{"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown", "os.truncate",
        "shutil.rmtree", "subprocess.Popen"}}
def see(event, args):
    global left
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in done) and {service!r} in str(args):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(see)
"""


@pytest.mark.timeout(1200)
def test_killed_at_any_touch_of_the_disk_it_ends_in_the_same_place(host: Host, tmp_path: Path) -> None:
    """Each agent dies some touches later than the one before it, and goes on from what all of those left behind, until
    one gets through. With PINRAIL_EVERY_CALL=1 it is one touch later, each time."""
    new, kept, before = two_run(host, tmp_path)
    step = 1 if os.environ.get("PINRAIL_EVERY_CALL") else 4
    deaths = 0
    with Load(host.endpoint(kept)) as load:
        host.machine.kill_agent()
        host.enable(2, "c1", "b1")
        for count in range(1 + step, 400, step):
            host.machine.start_agent(before=_DIES.format(count=count, service=host.service))
            agent = host.machine.agent
            assert agent

            def over(agent=agent) -> bool:  # type: ignore[no-untyped-def]
                status = host.status()
                return agent.poll() is not None or (status is not None and status.serial == 2)

            eventually(f"it dies at touch {count}, or is done", over, 40)
            if agent.poll() is None:
                break
            assert agent.returncode == -signal.SIGKILL
            deaths += 1
        host.machine.kill_agent()
        host.machine.start_agent()
        host.reached(2)
        eventually("both are registered", lambda: host.member("b1") and host.member("c1"))
    assert deaths >= 5
    assert load.failures == [] and set(load.answers) == {"b1"}
    assert host.pids("b1") == before and not host.pids("a1")
    installed(host, new)


#: Stops itself at the points named, so that its session expires there.
_STOPS = """
import os, signal
from hostagent import failpoint
points = {points!r}
def at(service, build, point):
    if (service, build, point) in points:
        points.remove((service, build, point))
        os.kill(os.getpid(), signal.SIGSTOP)
failpoint.at = at
"""


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.timeout(300)
def test_a_session_lost_in_the_middle_of_each_step_touches_nothing_else(host: Host, tmp_path: Path) -> None:
    new, kept, before = two_run(host, tmp_path)
    points = [
        *(("c1", p) for p in ("fetch.piece", "unpack.named", "prepare.filled")),
        *(("a1", p) for p in ("stop.before", "stop.unlisted")),
        *(("c1", p) for p in ("start.described", "start.written", "check.before", "register.after", "reached.before")),
    ]
    node = paths.host(host.service, host.name)
    with Load(host.endpoint(kept)) as load:
        host.machine.kill_agent()
        host.machine.start_agent(before=_STOPS.format(points=[(host.service, *p) for p in points]))
        agent = host.machine.agent
        assert agent
        host.enable(2, "c1", "b1")
        for build, point in points:
            eventually(f"it is at {point} of {build}", lambda: stopped(agent.pid), 40)
            eventually(f"its session is gone at {point}", lambda: host.zk.get(node, watch=False) is None, 20)
            eventually(f"and its members at {point}", lambda: host.member("b1") is None, 20)
            assert host.pids("b1") == before
            os.kill(agent.pid, signal.SIGCONT)
        host.reached(2, 40)
        eventually("both are registered", lambda: host.member("b1") and host.member("c1"))
    assert load.failures == [] and set(load.answers) == {"b1"}
    assert host.pids("b1") == before and all(map(alive, before.values()))
    installed(host, new)
