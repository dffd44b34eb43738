"""What a new plan costs: seconds to load VCLs of many backends, by compiler, and milliseconds to switch between two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, Samples
from bench.servers import PLAN, Server, varnishd
from edge import render, server
from edge.members import Host
from edge.varnish import Refused, VarnishTrouble
from fleet.model import Health, ServiceConfig

#: Nobody listens there, and probes are rare: what is timed is the load.
_SERVICE = ServiceConfig(health=Health(interval=60))
_GCC_DEADLINE = 60.0
_SWITCHES = 50


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    gcc = "not measured"
    with varnishd(directory / "gcc", compiler="gcc", compile_deadline=_GCC_DEADLINE) as slow:
        try:
            stock = loads(slow, 100, min(rounds, 3))
            gcc = f"{stock.text('.3f')} s, gcc -O2"
        except VarnishTrouble:
            stock, gcc = None, f"more than {_GCC_DEADLINE:g} s, gcc -O2"
    if not server.tcc_is_here():
        yield Row("load 2×100 backends", "tcc is not installed", gcc)
        return
    with varnishd(directory / "tcc", compiler="tcc") as fast:
        quick = loads(fast, 100, rounds)
        times = f", {stock.median / quick.median:.0f} times as long" if stock else ""
        yield Row("load 2×100 backends", f"{quick.text('.3f')} s, tcc", gcc + times)
        yield Row("load 2×1000 backends", f"{loads(fast, 1000, rounds).text('.3f')} s, tcc", "not measured")
        yield Row("switch (`vcl.label`)", f"{switches(fast).text('.2f')} ms", "")


def _vcl(backends: int) -> str:
    sets = {
        v: tuple(Host(f"127.{n + 1}.{i // 250}.{i % 250 + 1}", 9) for i in range(backends))
        for n, v in enumerate(PLAN.serving)
    }
    return render.service("app", _SERVICE, PLAN, sets).text


def loads(to: Server, backends: int, rounds: int) -> Samples:
    text, found = _vcl(backends), []
    for n in range(rounds):
        name = f"v_app_{backends}_{n}"
        began = time.monotonic()
        to.cli.load(name, text)
        found.append(time.monotonic() - began)
        to.cli.discard(name)
    return Samples(tuple(found))


def switches(to: Server) -> Samples:
    """From the order to varnishd's answer, by the agent's own connection, between two VCLs of 2×3 backends."""
    text, found = _vcl(3), []
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
