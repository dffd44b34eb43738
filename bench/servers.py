"""The servers of a measurement: an origin that is faster than Varnish, and Varnish as edges run it or as it comes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from edge import render, server
from edge.config import EdgeConfig, VarnishConfig
from edge.members import Host
from edge.render import Rendered, Route
from edge.varnish import Varnish, VarnishTrouble
from fleet import proc
from fleet.model import Health, Plan, ServiceConfig
from pinrail.local.ports import free_port

STORAGE = "malloc,64m"
SERVICE = ServiceConfig(health=Health(interval=5))
#: Backends of each version.
HOSTS = 3
PLAN = Plan(epoch=1, generation=1, default="B", serving=("B", "A"), retired=("Z",))
#: Packages of the programs that a measurement needs beside what ``script/setup`` installs.
_PACKAGES = {"wrk": "wrk", "taskset": "util-linux", "varnishd": "varnish", "nginx": "nginx-light", "haproxy": "haproxy"}


class Missing(Exception):
    """Something must be installed first; the message says what."""


def need(*programs: str) -> None:
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        packages = " ".join(_PACKAGES.get(p, p) for p in missing)
        raise Missing(f"{', '.join(missing)} not found: apt-get install {packages}")


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def on(core: int, argv: Sequence[str]) -> list[str]:
    """``argv`` bound to one core, where there are two to choose from: what is measured has one, all else the other."""
    known = cores()
    return ["taskset", "-c", str(known[core]), *argv] if len(known) > 1 else list(argv)


def until(what: str, check: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[int]:
    """The process id. What it has left running when it ends, such as a compiler, is ended too."""
    with (
        log.open("ab") as out,
        subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True) as child,
    ):
        try:
            yield child.pid
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def version(program: str) -> str:
    flag = {"nginx": "-v", "varnishd": "-V", "wrk": "-v", "haproxy": "-v"}.get(program, "--version")
    found = re.search(r"\d+\.\d+[\w.]*", proc.run([program, flag], deadline=10).output)
    return found.group() if found else "?"


def seconds_on_a_core(pid: int) -> float:
    """What a process has used in its life, in the kernel too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the origin --

_BODY = 1024


@contextlib.contextmanager
def origin(directory: Path) -> Iterator[dict[str, tuple[Host, ...]]]:
    """One nginx with a port for each host of each version; it answers any request with a stamped constant."""
    directory.mkdir()
    sets = {v: tuple(Host("127.0.0.1", free_port()) for _ in range(HOSTS)) for v in PLAN.serving}
    servers = "".join(
        f"server {{ listen 127.0.0.1:{h.port} reuseport; location / {{ add_header x-served-version {v} always;"
        f' add_header Cache-Control "max-age=3600"; return 200 "{v * _BODY}"; }} }}\n'
        for v, hosts in sets.items()
        for h in hosts
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 120s; default_type text/plain;\n"
        f"{servers}}}\n"
    )
    with running(on(-1, ["nginx", "-p", str(directory), "-c", "nginx.conf"]), directory / "log"):
        for hosts in sets.values():
            for h in hosts:
                until(f"nginx answers on {h.endpoint}; see {directory}", partial(connects, h.address, h.port))
        yield sets


def connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False


# -- Varnish --


class Server:
    """A varnishd that answers at ``listen``; ``cli`` is the edge agent's own connection to it."""

    def __init__(self, listen: str, cli: Varnish) -> None:
        self.listen = listen
        self.cli = cli

    def cpu_seconds(self) -> float:
        """Time on a core that the child has used in its life, in the kernel too."""
        child = self.cli.look().child
        return seconds_on_a_core(child) if child else 0.0


@contextlib.contextmanager
def varnishd(
    directory: Path,
    *,
    stock: bool = False,
    compiler: Literal["auto", "tcc", "gcc"] = "auto",
    compile_deadline: float = 120,
    **parameters: str,
) -> Iterator[Server]:
    """As an edge runs it; ``stock``: with the storage alone and all parameters as they come."""
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = EdgeConfig(
        name="bench",
        zookeeper="unused:2181",
        directory=directory,
        varnish=VarnishConfig(
            listen=listen, admin=admin, jail="none", storage=STORAGE, compiler=compiler, parameters=parameters
        ),
    )
    server.prepare(config)
    argv = server.argv(config)
    if stock:
        argv = argv[: argv.index("-p")] if "-p" in argv else argv
    with running(on(0, argv), directory / "log"):
        cli = Varnish(admin, server.secret_file(config), deadline=30, compile_deadline=compile_deadline)
        with contextlib.closing(cli):
            until(f"varnishd answers; see {directory / 'log'}", lambda: _has_child(cli), 30)
            yield Server(listen, cli)


def _has_child(cli: Varnish) -> bool:
    try:
        return cli.look().child is not None
    except VarnishTrouble:
        return False


def serve_pinrail(to: Server, sets: Mapping[str, tuple[Host, ...]]) -> Rendered:
    """The rendered production VCL, behind the root and its label."""
    vcl = render.service("app", SERVICE, PLAN, sets)
    load_healthy(to, vcl.name, vcl.text, len(vcl.backends))
    to.cli.label(render.label("app"), vcl.name)
    root = render.root([Route("app", SERVICE.match)], None)
    to.cli.load(root.name, root.text)
    to.cli.use(root.name)
    return vcl


def serve_bare(to: Server, hosts: Sequence[Host]) -> None:
    """The least that a person would write: the backends with a probe, one director, all else built in."""
    probe = f'.url = "{SERVICE.health.path}"; .interval = {SERVICE.health.interval:g}s; .initial = 1; '
    text = "vcl 4.1;\nimport directors;\n" + f"probe health {{ {probe}.window = 3; .threshold = 2; }}\n"
    for n, h in enumerate(hosts):
        text += f'backend b{n} {{ .host = "{h.address}"; .port = "{h.port}"; .probe = health; }}\n'
    adds = " ".join(f"d.add_backend(b{n});" for n in range(len(hosts)))
    text += f"sub vcl_init {{ new d = directors.round_robin(); {adds} }}\n"
    text += "sub vcl_recv { set req.backend_hint = d.backend(); }\n"
    load_healthy(to, "bare", text, len(hosts))
    to.cli.use("bare")


def load_healthy(to: Server, name: str, text: str, backends: int, seconds: float = 15) -> None:
    to.cli.load(name, text)
    until(f"all backends of {name} are healthy", lambda: _healthy(to, name) == backends, seconds)


def _healthy(to: Server, name: str) -> int:
    return sum(h == "healthy" for h in to.cli.health(name).values())
