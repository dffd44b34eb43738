"""The edge's counters against the client's own, and what they say when they cannot know."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.model import Plan
from fleet.zk import ZooKeeper
from tests.conftest import eventually
from tests.edge.bed import Edge, World, make_edge
from tests.edge.steps import committed, first, offered

#: Requests in flight on one connection.
_BATCH = 100
_ANSWERED = re.compile(rb"x-deployment-id: ([^\r]+)\r\n")
_END = b'"}'
#: What a client asks for, and what the edge should call it.
PINS = {"A": "exact", "B": "exact", "": "default", "old": "forced"}


def pipelined(edge: Edge, pin: str, count: int, seen: Counter[tuple[str, str]], stop: threading.Event) -> None:
    """``count`` cached requests on one connection, ``_BATCH`` at a time; each answer's version goes into ``seen``."""
    host, _, port = edge.listen.rpartition(":")
    header = f"x-deployment-id: {pin}\r\n" if pin else ""
    batch = f"GET /cached HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode() * _BATCH
    with socket.create_connection((host, int(port)), 60) as s:
        for _ in range(count // _BATCH):
            if stop.is_set():
                return
            s.sendall(batch)
            got = b""
            while got.count(_END) < _BATCH:
                more = s.recv(1 << 20)
                assert more, "the edge closed the connection"
                got += more
            versions = _ANSWERED.findall(got)
            assert len(versions) == _BATCH
            seen.update((v.decode(), PINS[pin]) for v in versions)


def load(
    edge: Edge, count: int, stop: threading.Event | None = None
) -> tuple[list[threading.Thread], Counter[tuple[str, str]]]:
    """``count`` requests for each of ``PINS``, beside each other."""
    seen: Counter[tuple[str, str]] = Counter()
    threads = [
        threading.Thread(target=pipelined, args=(edge, pin, count, seen, stop or threading.Event())) for pin in PINS
    ]
    for t in threads:
        t.start()
    return threads, seen


def counted(edge: Edge) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for name, value in edge.metrics().items():
        if m := re.match(r'pinrail_edge_requests_total\{.*outcome="(.*?)".*version="(.*?)"', name):
            found[m[2], m[1]] = int(value)
    return found


def flips(edge: Edge) -> dict[tuple[str, str, str], float]:
    found = {}
    for name, value in edge.metrics().items():
        if m := re.match(r'pinrail_edge_flips_total\{cause="(.*?)",.*from="(.*?)",.*to="(.*?)"', name):
            found[m[1], m[2], m[3]] = value
    return found


def said(edge: Edge, metric: str) -> float:
    return edge.metrics()[f'pinrail_edge_{metric}{{edge="edge-1"}}']


def test_a_hundred_thousand_requests_across_a_switch_are_counted_to_the_last_one(
    tmp_path: Path, zk_address: str, zk: ZooKeeper, world: World
) -> None:
    edge = make_edge(tmp_path, zk_address, zk, parameters={"vsl_space": "200m"})
    try:
        first(world, edge)
        plan = offered(world, edge).model_copy(update={"retired": ("old",)})
        world.plan(plan.model_copy(update={"epoch": 3}))
        eventually("the offer is acknowledged", lambda: edge.acked(3))
        assert not counted(edge), "green only when each request will be counted, and nothing was asked yet but health"
        threads, seen = load(edge, 25_000)
        eventually("requests flow", lambda: seen.total() > 20_000, 60)
        world.plan(committed(plan.model_copy(update={"epoch": 3}), "A"))
        for t in threads:
            t.join(120)
        assert seen.total() == 100_000
        assert seen["A", "default"] and seen["B", "default"], "the switch was in between"
        eventually("all is counted", lambda: counted(edge).total() >= 100_000, 60)
        assert counted(edge) == seen
        moved = {(c, o, to): n for c, o, to, n in (("retired", "old", v, seen[v, "forced"]) for v in "AB")}
        assert flips(edge) == moved
        assert said(edge, "log_overruns_total") == said(edge, "log_gaps_total") == 0
    finally:
        edge.close()


@pytest.fixture
def counting(tmp_path: Path, zk_address: str, zk: ZooKeeper, world: World) -> Iterator[Edge]:
    edge = make_edge(tmp_path, zk_address, zk, parameters={"vsl_space": "4m"})
    first(world, edge)
    world.host("B")
    world.plan(Plan(epoch=2, generation=1, default="A", serving=("B", "A"), retired=("old",)))
    eventually("it is acknowledged", lambda: edge.acked(2) and edge.ack().healthy == {"A": 1, "B": 1})
    yield edge
    edge.close()


def exactly(edge: Edge, count: int) -> None:
    """``count`` requests for each pin are counted, no more and no less."""
    before = counted(edge)
    threads, seen = load(edge, count)
    for t in threads:
        t.join(60)
    eventually("all is counted", lambda: counted(edge) - before == seen)


def test_an_overrun_and_a_dead_varnishlog_are_said_and_what_comes_after_is_exact(counting: Edge) -> None:
    exactly(counting, 100)
    child = counting.child_of("run", "varnishlog")
    assert child
    before = counted(counting).total()
    os.kill(child, signal.SIGSTOP)
    threads, seen = load(counting, 3_000)
    for t in threads:
        t.join(60)
    os.kill(child, signal.SIGCONT)
    eventually("the overrun is said", lambda: said(counting, "log_overruns_total") >= 1)
    assert counted(counting).total() - before < seen.total(), "what was lost is not made up"
    eventually("it is found again", lambda: said(counting, "counting") == 1)
    exactly(counting, 100)

    os.kill(child, signal.SIGKILL)
    eventually("the gap is said", lambda: said(counting, "log_gaps_total") == 1)
    eventually("and its end", lambda: said(counting, "counting") == 1)
    exactly(counting, 100)

    worker = counting.look().child
    assert worker
    os.kill(worker, signal.SIGKILL)
    eventually("a new log is a gap too", lambda: said(counting, "log_gaps_total") == 2)
    eventually("it is counted again", lambda: said(counting, "counting") == 1 and counting.acked(2))
    eventually("both answer", lambda: counting.ack().healthy == {"A": 1, "B": 1})
    exactly(counting, 100)
