"""The whole path in containers: its start, what it costs beside a load balancer that asks processes itself, a release.

Where no Docker engine answers there is one row that says so. The fleet is that of ``compose/compose.yaml``, with as
many processes behind it as the other side has.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench import engine
from bench.engine import docker, environment
from bench.measure import Row, alternating, compared, load

_NAME = "containers: HAProxy, edge, host's nginx, process"
_PROCESSES = 8
_RELEASES = 2
#: The other side: the sample's processes and a load balancer, in one network.
_PROXY = """\
global
  maxconn 4096
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
frontend users
  bind :8080
  default_backend processes
backend processes
  balance leastconn
"""


@dataclass(frozen=True)
class _Box:
    """What listens in containers: their time on a core is not one process's, so it is not measured."""

    listen: str

    def cpu_seconds(self) -> float:
        return 0.0


def rows(*, seconds: int, rounds: int) -> Iterator[Row]:
    if why := engine.why_not():
        yield Row(_NAME, "", why)
        return
    engine.build()
    with engine.project(environment()) as project:
        began = time.monotonic()
        project("up", "-d")
        project.green()
        yield Row("containers: from `up` to green, images built", f"{time.monotonic() - began:.0f} s", "")
        project("run", "--rm", "tools", "container", "first", seconds=600)
        net = project.environment["PINRAIL_NET"]
        with _processes(project.name) as other:
            ask = partial(load, path="/api/feed", headers={}, seconds=seconds)
            pairs = alternating(partial(ask, _Box(f"{net}.1.61:8080")), partial(ask, _Box(other)), rounds)
        row = compared(_NAME, pairs, "HAProxy and as many processes", None)
        yield Row(row.name, row.ours, row.other, rate=row.rate)
        yield from _release(project)


def _release(project: engine.Project) -> Iterator[Row]:
    words = ("container", "releases", "--releases", str(_RELEASES), "--browsers", "8", "--json")
    done = project("run", "--rm", "-T", "tools", *words, seconds=900)
    found = json.loads(done.stdout[done.stdout.index("{") :])
    for n, release in enumerate(found["releases"]):
        steps = ", ".join(f"{name} {took:.2f} s" for name, took in release["steps"].items())
        what = "rollback" if n == _RELEASES else f"release {n + 1}"
        yield Row(f"containers: {what}, under load", f"{release['seconds']:.1f} s: {steps}", "")


@contextlib.contextmanager
def _processes(project: str) -> Iterator[str]:
    """The sample's processes behind an HAProxy that has nothing between; where it listens."""
    label = ("--label", f"com.docker.compose.project={project}", "--label", "com.docker.compose.oneoff=True")
    ports = range(9001, 9001 + _PROCESSES)
    start = "".join(f"PORT={p} PINRAIL_VERSION=a1 PINRAIL_HOST=x PINRAIL_SLOT=0 python serve.py & " for p in ports)
    make = "python /opt/pinrail/app/samples/ngapp/make_build.py a1 /tmp/a1 && cd /tmp/a1 && "
    tools, haproxy = engine.image("tools"), engine.image("haproxy")
    box = docker(
        *("run", "-d", *label, "--network", f"{project}_front", "--entrypoint", "bash", tools),
        *("-c", f"{make}{start}wait"),
    )
    servers = "".join(f"  server p{p} 127.0.0.1:{p} check\n" for p in ports)
    proxy = docker(
        *("run", "-d", *label, "--network", f"container:{box}", "-e", f"CFG={_PROXY}{servers}", haproxy),
        *("bash", "-c", 'echo "$CFG" >/run/pinrail/h.cfg && exec haproxy -db -f /run/pinrail/h.cfg'),
    )
    try:
        docker("exec", box, "timeout", "60", "bash", "-c", "until health http 8080 /healthz; do sleep 0.2; done")
        inspected = json.loads(docker("inspect", box))[0]["NetworkSettings"]["Networks"]
        yield f"{inspected[f'{project}_front']['IPAddress']}:8080"
    finally:
        docker("rm", "-f", proxy, box)
