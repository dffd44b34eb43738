"""Is a part of the local fleet really ready: it is asked, over the network, what its users would ask it.

Every question has a deadline of a second or two. An answer is None for ready, else a few words on what is awaited.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from urllib.parse import urlsplit

import httpx

from fleet.loop import Trouble
from fleet.s3 import ObjectStore, S3Refused
from pinrail.local import config
from pinrail.local.state import FleetState

_SECONDS = 2.0


class Refused(Exception):
    """It answers, and the answer is no: waiting will not help."""


def _ask(address: str, say: bytes, expect: bytes) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _SECONDS) as s:
            s.sendall(say)
            got = s.recv(256)
    except OSError as e:
        return f"{address}: {e.strerror or e}"
    return None if got.startswith(expect) else f"{address} answers {got[:40]!r}"


def http(url: str, *, want: int = 200) -> str | None:
    try:
        # A proxy from the environment has no business on loopback.
        with httpx.Client(trust_env=False, timeout=_SECONDS) as client:
            answer = client.get(url)
    except httpx.HTTPError as e:
        return f"{url}: {e or type(e).__name__}"
    if answer.status_code == want:
        return None
    words = " ".join(answer.text.split())[:200]
    return f"{url} answers {answer.status_code}" + (f": {words}" if words else "")


def _s3(fleet: FleetState) -> str | None:
    # Is the port open at all? A refused connection would keep boto3 trying for seconds.
    if (closed := _open(urlsplit(fleet.s3).netloc)) is not None:
        return closed
    try:
        s3 = config.s3_config(fleet).model_copy(update={"stall_seconds": 5})
        ObjectStore(s3, connect_seconds=_SECONDS).keys("builds/")
    except S3Refused as e:
        raise Refused(str(e)) from e
    except Trouble as e:
        return str(e)
    return None


def _open(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), _SECONDS):
        return None
    return f"nothing listens on {address}"


def keeper(address: str) -> str | None:
    """A ZooKeeper server that serves: of an ensemble one that has joined it."""
    return _ask(address, b"srvr", b"Zookeeper version")


def check(fleet: FleetState, part: str) -> str | None:
    """None when ``part`` is ready, else what is awaited. Parts that answer nobody directly are ready when they run.

    Raises Refused where waiting will not help.
    """
    for server in fleet.zookeeper.servers:
        if part == server.id:
            return _ask(server.address, b"ruok", b"imok")
    if part == "s3":
        return _s3(fleet)
    if part == "prometheus":
        return http(f"{fleet.prometheus}/-/ready")
    for edge in fleet.edges:
        if part == edge.id:
            return http(edge.metrics)
        if part == f"{edge.id}-server":
            if edge.engine == "nginx":
                return http(f"http://{edge.admin}/marker") or _open(urlsplit(edge.url).netloc)
            # 107: Varnish's command line asks who is there. Then its child serves: any answer will do.
            return _ask(edge.admin, b"", b"107 ") or _open(urlsplit(edge.url).netloc)
    for host in fleet.hosts:
        if part == host.id:
            return http(host.metrics)
    for barrier in fleet.barrier:
        if part == barrier.id:
            return http(f"{barrier.url}/readyz")
    return None
