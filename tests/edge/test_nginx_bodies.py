"""Bodies through an nginx edge, both ways: large, endless, in ranges, not at all. For Varnish: VTC 24, 34 and 35."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket

import pytest

from fleet.model import ServiceConfig
from tests.conftest import eventually
from tests.edge.backend import ETAG, FILE
from tests.edge.bed import CONFIG, Edge, World
from tests.edge.steps import PLAN

_LIMIT = 16 * 1024 * 1024


@pytest.fixture
def edge(world: World, nginx_edge: Edge) -> Edge:
    """It serves A, and takes bodies of up to 16 MiB."""
    config: ServiceConfig = CONFIG.model_copy(update={"body_bytes": _LIMIT})
    world.configure(config=config)
    world.host("A")
    world.plan(PLAN)
    nginx_edge.start()
    eventually("the health page turns green", lambda: nginx_edge.health() == 200, 60)
    return nginx_edge


def test_a_large_body_arrives_whole_and_one_beyond_the_limit_at_no_host(world: World, edge: Edge) -> None:
    taken = edge.ask("/upload", method="POST", body=b"x" * _LIMIT)
    assert (taken.status, json.loads(taken.body)["bytes"]) == (200, _LIMIT)
    host, _, port = edge.listen.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as s:
        s.sendall(f"POST /toolarge HTTP/1.1\r\nHost: x\r\nContent-Length: {_LIMIT + 1}\r\n\r\n".encode())
        assert s.recv(12) == b"HTTP/1.1 413"
    assert [p for p in world.backends[0].asked if p.startswith("POST")] == ["POST /upload"]


def test_an_answer_is_passed_on_as_it_comes(world: World, edge: Edge) -> None:
    host, _, port = edge.listen.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.request("GET", "/parts")
        answer = connection.getresponse()
        assert answer.getheader("x-deployment-id") == "A"
        assert answer.read(5) == b"first", "its end is yet to come"
        world.backends[0].release.set()
        assert answer.read() == b"last"


def test_ranges_conditions_and_sizes_are_asked_of_the_host_and_attested_like_all_else(edge: Edge) -> None:
    part = edge.ask("/file", Range="bytes=2-5")
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"2345", "bytes 2-5/10")
    same = edge.ask("/file", If_None_Match=ETAG)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", ETAG)
    head = edge.ask("/file", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(FILE)))
    assert {a.version for a in (part, same, head, edge.ask("/file"))} == {"A"}


@pytest.mark.parametrize("header", [{"Range": "bytes=2-5"}, {"If_None_Match": ETAG}])
def test_a_part_of_another_version_is_not_delivered(world: World, edge: Edge, header: dict[str, str]) -> None:
    world.backends[0].stamp = "Z"
    try:
        status = edge.ask("/file", **header).status
    except http.client.RemoteDisconnected:
        status = 503  # as good as: nginx can only close what it refuses at the last moment
    assert status == 503
