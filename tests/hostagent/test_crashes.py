"""The agent killed at every step's boundary, and in the middle of the steps that have one, all in one install."""

from __future__ import annotations

import json
import signal

import pytest

from tests.conftest import eventually
from tests.hostagent.fleet import Host, Load

#: In the order in which an install of c1 into a1's slot comes by them: whose, and which.
POINTS = (
    *(("c1", f"fetch.{p}") for p in ("before", "piece", "verified")),
    *(("c1", f"unpack.{p}") for p in ("before", "named")),
    *(("c1", f"prepare.{p}") for p in ("before", "filled")),
    *(("a1", f"stop.{p}") for p in ("before", "unlisted", "stopped")),
    *(("c1", f"start.{p}") for p in ("before", "described", "written")),
    ("c1", "check.before"),
    *(("c1", f"register.{p}") for p in ("before", "after")),
    *(("c1", f"reached.{p}") for p in ("before", "after")),
)


@pytest.mark.timeout(300)
def test_killed_at_every_boundary_of_an_install_it_ends_in_the_same_place(host: Host) -> None:
    """Each agent finds what the one before it left, gets one boundary further, and dies there."""
    others = set(host.venvs())
    install = ("sh", "-c", 'echo made > "$PINRAIL_INSTALL/it"')
    pool = host.config.pool.model_copy(update={"install": install})
    host.configure(host.config.model_copy(update={"pool": pool}))
    for build in ("a1", "b1", "c1"):
        host.publish(build)
    host.enable(1, "b1", "a1")
    host.reached(1)
    new, kept = ((0, 1), (1, 0))[host.slot(0).build == "b1"]  # type: ignore[union-attr]
    before = host.pids("b1")
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
    assert json.loads(host.ask(new)[2])["build"] == "c1"
    current = host.machine.directory / f"slots/{host.service}/{new}/current"
    assert current.resolve() == host.releases / "c1"
    assert {p.name for p in host.releases.iterdir()} == {"a1", "b1", "c1"}
    assert list(host.archives.iterdir()) == []
    venvs = [p for p in host.venvs() if p not in others]
    assert len(venvs) == 3 and all((p / "it").exists() for p in venvs), "one of each build, all complete"
    assert not [p for p in venvs[0].parent.iterdir() if p.name.startswith(".")], "nothing half made is left"
    assert len(set(agents)) == len(POINTS)
