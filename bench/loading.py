"""What a new plan costs: seconds until VCLs of many backends are loaded and probed, milliseconds to switch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.measure import Row, Samples
from bench.servers import PLAN, Server, load_healthy, on, running, until, varnishd
from edge import render, server
from edge.members import Host
from edge.varnish import Refused, VarnishTrouble
from fleet.model import Health, ServiceConfig
from pinrail.local.ports import free_port

#: Probes are rare, so that what is timed is the load and the first of them.
_SERVICE = ServiceConfig(health=Health(interval=60))
_GCC_DEADLINE = 120.0
#: All have answered their first probe by then, on a machine that has other things to do.
_PROBED = 60
_SIZES = (100, 500, 1000, 2000)
#: From here on one load says enough.
_LARGE = 1000
_SWITCHES = 50


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    with _healthy(directory / "probed") as port:
        by_gcc = _by_gcc(directory / "gcc", port, rounds)
        if not server.tcc_is_here():
            for size in _SIZES:
                yield Row(_name(size), "tcc is not installed", _gcc(by_gcc[size]))
            return
        with varnishd(directory / "tcc", compiler="tcc") as fast:
            for size in _SIZES:
                quick, slow = _ready(fast, size, port, rounds), by_gcc[size]
                times = f", {slow.median / quick.median:.0f} times as long" if slow else ""
                goal = "; goal: ≤ 0.5 s, 50 times" if size == _LARGE else ""
                yield Row(_name(size), f"{quick.text('.3f')} s, tcc{goal}", _gcc(slow) + times)
            yield Row("switch (`vcl.label`)", f"{switches(fast).text('.2f')} ms", "")


def _name(size: int) -> str:
    return f"load and probe 2×{size} backends" if size <= _LARGE else f"load 2×{size} backends, without the probes"


def _gcc(found: Samples | None) -> str:
    return f"{found.text('.2f')} s, gcc -O2" if found else f"not within {_GCC_DEADLINE:g} s, gcc -O2"


def _by_gcc(directory: Path, port: int, rounds: int) -> dict[int, Samples | None]:
    """None: not within the deadline; then nothing larger is tried."""
    found: dict[int, Samples | None] = dict.fromkeys(_SIZES)
    with varnishd(directory, compiler="gcc", compile_deadline=_GCC_DEADLINE) as to:
        for size in _SIZES:
            try:
                found[size] = _ready(to, size, port, rounds if size == _SIZES[0] else 1)
            except VarnishTrouble:
                break
    return found


@contextlib.contextmanager
def _healthy(directory: Path) -> Iterator[int]:
    """An nginx on every address of this machine that answers any probe: its port."""
    directory.mkdir()
    port = free_port()
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;\n"
        "events { worker_connections 8192; }\n"
        f"http {{ access_log off; server {{ listen {port}; location / {{ return 200; }} }} }}\n"
    )
    with running(on(-1, ["nginx", "-p", str(directory), "-c", "nginx.conf"]), directory / "log"):
        yield port


def _vcl(backends: int, port: int) -> render.Rendered:
    sets = {
        v: tuple(Host(f"127.{n + 1}.{i // 250}.{i % 250 + 1}", port) for i in range(backends))
        for n, v in enumerate(PLAN.serving)
    }
    return render.service("app", _SERVICE, PLAN, sets)


def _ready(to: Server, size: int, port: int, rounds: int) -> Samples:
    """Seconds from the order to load until every backend has answered its first probe; beyond _LARGE, until loaded."""
    vcl, found = _vcl(size, port), []
    for n in range(1 if size >= _LARGE else rounds):
        name = f"v_app_{size}_{n}"
        began = time.monotonic()
        if size <= _LARGE:
            load_healthy(to, name, vcl.text, len(vcl.backends), _PROBED)
        else:
            to.cli.load(name, vcl.text)
        found.append(time.monotonic() - began)
        to.cli.discard(name)
        until(f"{name} is gone", partial(_gone, to, name))
    return Samples(tuple(found))


def _gone(to: Server, name: str) -> bool:
    return not to.cli.health(name)


def switches(to: Server) -> Samples:
    """From the order to varnishd's answer, by the agent's own connection, between two VCLs of 2×3 backends."""
    text, found = _vcl(3, 9).text, []
    for name in ("one", "two"):
        to.cli.load(name, text)
    for n in range(_SWITCHES):
        began = time.monotonic()
        try:
            to.cli.label("svc-app", ("one", "two")[n % 2])
        except Refused as e:
            raise AssertionError(f"varnishd refused to switch: {e}") from e
        found.append((time.monotonic() - began) * 1000)
    return Samples(tuple(found))
