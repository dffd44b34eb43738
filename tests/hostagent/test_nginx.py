"""The slot's nginx as it is really rendered, in front of processes that misbehave."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.local_http import connection
from hostagent import nginx
from hostagent.http import NoAnswer, get
from pinrail.local.ports import free_port
from tests.conftest import eventually


class Backend:
    """Listens on a unix socket; ``answer`` gets each connection, with what was sent until the end of the header."""

    def __init__(self, path: Path, answer: Callable[[socket.socket, bytes], None]) -> None:
        self.seen: list[bytes] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                c, _ = self._listener.accept()
            except OSError:
                return
            t = threading.Thread(target=self._serve, args=(c,), daemon=True)
            self._threads.append(t)
            t.start()

    def _serve(self, c: socket.socket) -> None:
        with c:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := c.recv(65536)):
                    return
                head += piece
            self.seen.append(head)
            self._answer(c, head)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for t in self._threads:
            t.join(10)


def good(c: socket.socket, head: bytes) -> None:
    head, _, body = head.partition(b"\r\n\r\n")
    wanted = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < wanted:  # what closes before it has read all resets the connection
        body += c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-served-version: lie\r\nX-Served-By: lie\r\n\r\nok")


def dies(c: socket.socket, _: bytes) -> None:
    """Takes the request and is gone."""


class Slot:
    """nginx on a free port, and its backends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.backends: list[Backend] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.values = nginx.Values(
            service="app",
            build="b1",
            host="host-1",
            listen=self.endpoint,
            stub=str(directory / "stub.sock"),
            prefix=str(directory),
            pool=(),
            user="root" if os.geteuid() == 0 else None,
            response_seconds=2,
            stop_seconds=1,
            body_bytes=1024 * 1024,
            workers=1,
            files=1024,
        )

    def start(self, *answers: Callable[[socket.socket, bytes], None], as_user: str | None = None) -> None:
        paths = [self.directory / f"p{i}.sock" for i in range(max(1, len(answers)))]
        self.backends = [Backend(p, a) for p, a in zip(paths, answers, strict=False)]
        values = replace(self.values, pool=tuple(f"unix:{p}" for p in paths))
        if as_user:
            values = replace(values, user=None)
        (self.directory / "temp").mkdir()
        (self.directory / "nginx.conf").write_text(nginx.render(values))
        if as_user:
            shutil.chown(self.directory, as_user)
            shutil.chown(self.directory / "temp", as_user)
        argv = nginx.argv(nginx.program(), self.directory)
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, user=as_user)
        eventually("nginx answers", self.answers)

    def answers(self) -> bool:
        assert self.process and self.process.poll() is None, self.log()
        try:
            nginx.status(self.values.stub)
        except NoAnswer:
            return False
        return True

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def seen(self) -> list[bytes]:
        """Method of each request that reached a process."""
        return [head.partition(b" ")[0] for b in self.backends for head in b.seen]

    def ask(self, method: str, path: str = "/", body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        c = connection(self.endpoint, 10)
        try:
            c.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
            r = c.getresponse()
            r.content = r.read()  # type: ignore[attr-defined]
            return r
        finally:
            c.close()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
        for b in self.backends:
            b.close()


@pytest.fixture
def slot() -> Iterator[Slot]:
    with tempfile.TemporaryDirectory(prefix="pinrail-") as d:
        made = Slot(Path(d))
        yield made
        made.stop()


def test_the_stamp_is_ours_whatever_the_application_says(slot: Slot) -> None:
    slot.start(good)
    for method in ("GET", "POST", "PUT", "HEAD"):
        r = slot.ask(method, body=b"x" if method[0] == "P" else None)
        assert r.status == 200
        assert r.headers.get_all("x-served-version") == ["b1"] and r.headers.get_all("x-served-by") == ["host-1"]


def test_the_stamp_is_on_errors_too(slot: Slot) -> None:
    slot.start()
    for r, status in (
        (slot.ask("GET"), 502),
        (slot.ask("DELETE"), 502),
        (slot.ask("POST", body=b"x" * (1024 * 1024 + 1)), 413),
        (slot.ask("GET", Host="a b"), 400),
    ):
        assert (r.status, r.headers["x-served-version"], r.headers["x-served-by"]) == (status, "b1", "host-1")


def test_a_request_meant_for_another_version_is_not_even_asked(slot: Slot) -> None:
    slot.start(good)
    for method in ("GET", "POST"):
        # nginx looks at the header only: a body that comes after it has closed is answered by a reset.
        with pytest.raises(ConnectionError):
            slot.ask(method, body=b"x" if method == "POST" else None, x_pinrail_expect="b2")
        assert slot.ask(method, x_pinrail_expect="b1").status == 200
    assert slot.seen() == [b"GET", b"POST"]


def test_nothing_internal_on_the_public_port(slot: Slot) -> None:
    slot.start(good)
    for path in ("/status", "/.pinrail/stub"):
        assert slot.ask("GET", path).content == b"ok"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("HEAD", 2), ("OPTIONS", 2)])
def test_a_safe_request_goes_to_the_next_process(slot: Slot, method: str, times: int) -> None:
    slot.start(dies, dies)
    assert slot.ask(method).status == 502
    assert slot.seen() == [method.encode()] * times


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "LOCK", "MKCOL", "ODD"])
def test_a_request_that_may_have_been_acted_on_is_never_repeated(slot: Slot, method: str) -> None:
    slot.start(dies, dies, dies)
    assert slot.ask(method, body=b"x").status == 502
    assert slot.seen() == [method.encode()]


def test_a_post_goes_to_the_next_process_where_none_listens(slot: Slot) -> None:
    slot.start(good, good)
    slot.backends.pop(0).close()
    assert [slot.ask("POST", body=b"x").status for _ in range(4)] == [200] * 4


def test_a_slow_answer_takes_no_process_from_the_others(slot: Slot) -> None:
    end = threading.Event()

    def either(c: socket.socket, head: bytes) -> None:
        if b"/slow" in head:
            end.wait(10)
        else:
            good(c, head)

    slot.start(either, either)
    slow = [threading.Thread(target=slot.ask, args=("GET", "/slow")) for _ in range(4)]
    for t in slow:
        t.start()
    for t in slow:
        t.join(10)
    assert [slot.ask("GET").status for _ in range(4)] == [200] * 4
    end.set()


def test_all_of_the_request_reaches_the_process(slot: Slot) -> None:
    slot.start(good)
    slot.ask("GET", "/a%2Fb//c/../d?x=%20&y", x_dpl="b1", x_under_score="1", Cookie="__dpl=1.b1.3")
    head = slot.backends[0].seen[0]
    assert head.startswith(b"GET /a%2Fb//c/../d?x=%20&y HTTP/1.1\r\n")
    assert f"Host: {slot.endpoint}".encode() in head and b"Cookie: __dpl=1.b1.3" in head and b"x-dpl: b1" in head
    assert b"X-Forwarded-For: 127.0.0.1" in head


def test_answers_stream(slot: Slot) -> None:
    go = threading.Event()

    def slowly(c: socket.socket, _: bytes) -> None:
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        go.wait(10)
        c.sendall(b"3\r\ntwo\r\n0\r\n\r\n")

    slot.start(slowly)
    c = connection(slot.endpoint, 10)
    c.request("GET", "/")
    r = c.getresponse()
    assert r.read(3) == b"one", "before there is more"
    go.set()
    assert r.read() == b"two"
    c.close()


def test_requests_stream(slot: Slot) -> None:
    first = threading.Event()

    def reads(c: socket.socket, head: bytes) -> None:
        got = head.partition(b"\r\n\r\n")[2]
        while b"one" not in got:
            got += c.recv(100)
        first.set()
        while b"two" not in got:
            got += c.recv(100)
        good(c, b"")

    slot.start(reads)
    with socket.create_connection(("127.0.0.1", int(slot.endpoint.rpartition(":")[2])), 10) as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\none")
        assert first.wait(10), "the process sees the beginning before there is more"
        s.sendall(b"two")
        assert s.recv(100).startswith(b"HTTP/1.1 200")


def test_websockets_pass_through(slot: Slot) -> None:
    def echo(c: socket.socket, head: bytes) -> None:
        assert b"Upgrade: websocket" in head and b"Connection: upgrade" in head
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        c.sendall(c.recv(100).upper())

    slot.start(echo)
    with socket.create_connection(("127.0.0.1", int(slot.endpoint.rpartition(":")[2])), 10) as s:
        s.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 101")
        s.sendall(b"hello")
        assert s.recv(100) == b"HELLO"


def test_a_process_that_says_nothing_is_a_504_with_the_stamp(slot: Slot) -> None:
    end = threading.Event()
    slot.start(lambda c, _: (end.wait(10), None)[1])
    begun = time.monotonic()
    r = slot.ask("GET")
    end.set()
    assert r.status == 504 and r.headers["x-served-version"] == "b1"
    assert 1.5 < time.monotonic() - begun < 6


def test_busy_counts_requests_and_not_idle_connections(slot: Slot) -> None:
    go = threading.Event()

    def waits(c: socket.socket, head: bytes) -> None:
        go.wait(10)
        good(c, head)

    slot.start(waits)
    c = connection(slot.endpoint, 10)
    assert nginx.status(slot.values.stub).busy == 0
    c.request("GET", "/")
    eventually("one is busy", lambda: nginx.status(slot.values.stub).busy == 1)
    go.set()
    c.getresponse().read()
    eventually("none is busy, though the connection is there", lambda: nginx.status(slot.values.stub).busy == 0)
    before = nginx.status(slot.values.stub).requests
    assert nginx.status(slot.values.stub).requests == before + 1
    c.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_as_an_ordinary_user(slot: Slot) -> None:
    slot.start(good, as_user="nobody")
    assert slot.ask("POST", body=b"x" * 100_000).status == 200


def test_get_has_a_deadline_and_a_sentence_for_everything(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match=rf"nothing listens on unix:{tmp_path}/none"):
        get(f"unix:{tmp_path}/none", "/", 1)
    with tempfile.TemporaryDirectory(prefix="pinrail-") as d:
        for n, (answer, words) in enumerate(
            [
                (lambda c, _: c.sendall(b"220 smtp\r\n"), "not an HTTP answer"),
                (dies, "closed connection without response|reset"),
                (lambda c, _: (c.recv(1), None)[1], "no answer within 0.2 s"),
            ]
        ):
            backend = Backend(Path(d) / str(n), answer)
            with pytest.raises(NoAnswer, match=words):
                get(f"unix:{d}/{n}", "/", 0.2)
            backend.close()
