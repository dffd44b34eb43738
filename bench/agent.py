"""A host's agent in a local fleet: what it takes while nothing happens, and what it adds to a service's own start."""

from __future__ import annotations

import os
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, Samples
from bench.servers import running, seconds_on_a_core
from fleet import paths
from fleet.zk import ZooKeeper
from pinrail.local import sample, status
from pinrail.local import up as fleets
from pinrail.local.ports import free_port
from pinrail.local.progress import Progress
from pinrail.local.state import FleetState

_STARTS = 3


def rows(directory: Path, *, rounds: int, idle: float = 60.0) -> Iterator[Row]:
    """``idle``: seconds for which nothing happens."""
    own = Samples(tuple(_own_start(directory / f"own-{n}") for n in range(_STARTS)))
    wanted = fleets.Wanted(edges=1, hosts=1, barriers=1)
    fleet, _ = fleets.up(directory / "fleet", wanted, Progress())
    try:
        zk = ZooKeeper(fleet.zookeeper.connect, wake=lambda *_: None)
        zk.start()
        try:
            _deploy(fleet, zk, sample.BUILDS[1])
            # All builds that follow go where another one has to be stopped.
            took = [_deploy(fleet, zk, sample.BUILDS[(n + 2) % 3]) for n in range(min(rounds, 4))]
        finally:
            zk.close()
        core, memory = _idle(fleet, idle)
    finally:
        fleets.down(directory / "fleet", keep=False)
    added = Samples(tuple(t - own.median for t in took))
    start = f"{own.text('.1f')} s, the service alone, to its first good answer"
    yield Row("from a host's turn to its registration", f"{Samples(tuple(took)).text('.1f')} s", start)
    yield Row("... of which is Pinrail's", f"{added.text('.1f')} s", "stop, drain, fetch, unpack, post-install, checks")
    yield Row("a host's agent, idle", f"{core:.2%} of a core, {memory:,.0f} MB", f"over {idle:g} s; goal: < 1 %")


def _own_start(tree: Path) -> float:
    sample.tree(tree, tree.name)
    port = free_port()
    argv = ("/usr/bin/env", f"PORT={port}", f"PINRAIL_VERSION={tree.name}", sys.executable, str(tree / "serve.py"))
    began = time.monotonic()
    with running(argv, tree.with_suffix(".log")):
        while time.monotonic() - began < 60:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
                    return time.monotonic() - began
            except (urllib.error.URLError, OSError):
                time.sleep(0.01)
    raise TimeoutError("the sample service does not start")


def _deploy(fleet: FleetState, zk: ZooKeeper, build: str) -> float:
    """Seconds from the host's turn to its member of the server set."""
    host = fleet.hosts[0]
    endpoints = [f"{host.address}:{port}" for port in fleet.slots[sample.SERVICE]]
    members = [paths.member(sample.SERVICE, build, e) for e in endpoints]
    turn = paths.turn(sample.SERVICE, host.id)
    with sample.client(fleet) as api:
        number = api.deploy(sample.SERVICE, build, reason="bench").number
        begun = None
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            there = zk.get_many([turn, *members])
            if begun is None and turn in there:
                begun = time.monotonic()
            if begun is not None and any(m in there for m in members):
                took = time.monotonic() - begun
                api.wait_rollout(sample.SERVICE, number, seconds=60)
                return took
            time.sleep(0.005)
    raise TimeoutError(f"{build} is not registered")


def _idle(fleet: FleetState, seconds: float) -> tuple[float, float]:
    """Its share of a core, and its memory in MB."""
    status.refresh(fleet)
    pid = fleet.hosts[0].pids["agent"]
    if pid is None:
        raise TimeoutError("the agent does not run")
    before, began = seconds_on_a_core(pid), time.monotonic()
    memory = []
    while (left := seconds - (time.monotonic() - began)) > 0:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        time.sleep(min(left, 5.0))
    return (seconds_on_a_core(pid) - before) / (time.monotonic() - began), statistics.median(memory)
