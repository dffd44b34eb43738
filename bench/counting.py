"""What counting flip-flops costs: the same load with varnishlog and its reader beside varnishd, and without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.measure import Round, Row, Spoiled, alternating, compared, load
from bench.servers import PLAN, origin, serve_pinrail, until, varnishd
from edge.flips import Flips
from edge.metrics import Metrics

#: Connections that keep varnishd about half busy: it waits for them, not they for it.
_HALF = 2


def rows(directory: Path, *, seconds: int, rounds: int) -> Iterator[Row]:
    directory.mkdir()
    with origin(directory / "origin") as sets, varnishd(directory / "edge") as to:
        serve_pinrail(to, sets)
        pinned = {"x-deployment-id": "A"}
        ask = partial(load, to, "/data", pinned, seconds, connections=_HALF)
        counting = partial(_counted, ask, directory / "edge" / "varnish")
        yield compared("hit, pinned, half load, counted", alternating(counting, ask, rounds), "not counted", 0.95)


def _counted(ask: Callable[[], Round], workdir: Path) -> Round:
    known = {"app": frozenset((*PLAN.serving, *PLAN.retired))}
    metrics = Metrics("bench")
    counting = threading.Event()
    flips = Flips(workdir, lambda: known, metrics, counting, lambda: None)
    flips.start()
    try:
        until("varnishlog reads", counting.is_set)  # varnishd's manager asks its child now and then, and that is logged
        found = ask()
    finally:
        flips.stop()
    samples = (s for m in metrics.registry.collect() for s in m.samples)
    counted = sum(s.value for s in samples if s.name == "pinrail_edge_requests_total")
    if not counted:
        raise Spoiled("nothing was counted")
    return found
