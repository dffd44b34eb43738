"""A proxy before the real S3 that does to answers what networks and stores do to them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_DEADLINE = 30.0


class Answer:
    """The real store's answer, for a fault to change."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = dict(headers)
        self.body = body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT":
            proxy.written[urlsplit(self.path).path] = body
        fault = proxy.fault if self.command in ("GET", "HEAD") and proxy.about in self.path else None
        try:
            if fault is hangs:
                self.close_connection = True
                proxy.released.wait(_DEADLINE)
                return
            answer = self._real(body)
            if fault is None:
                self._pass_on(answer, answer.body)
            else:
                fault(self, answer)
        except OSError:
            self.close_connection = True  # the client has gone

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _real(self, body: bytes) -> Answer:
        upstream = http.client.HTTPConnection(self.server.proxy.real, timeout=_DEADLINE)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            found = upstream.getresponse()
            return Answer(found.status, found.getheaders(), found.read())
        finally:
            upstream.close()

    def _head(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()

    def _pass_on(self, answer: Answer, body: bytes) -> None:
        self._head(answer)
        self.wfile.write(body)


Fault = Callable[[_Handler, Answer], None]


def hangs(_: _Handler, __: Answer) -> None:
    """It takes the request and says nothing."""


def fails(handler: _Handler, _: Answer) -> None:
    body = b"<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>"
    handler._pass_on(Answer(500, [("Content-Length", str(len(body)))], b""), body * (handler.command == "GET"))


def absent(handler: _Handler, _: Answer) -> None:
    body = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
    handler._pass_on(Answer(404, [("Content-Length", str(len(body)))], b""), body * (handler.command == "GET"))


def cut(handler: _Handler, answer: Answer) -> None:
    """The connection ends in the middle of the body."""
    handler._pass_on(answer, answer.body[: len(answer.body) // 2])
    handler.close_connection = True


def crawls(handler: _Handler, answer: Answer) -> None:
    """A byte now and then: never silent for long, and never done."""
    handler._head(answer)
    for i in range(len(answer.body)):
        handler.wfile.write(answer.body[i : i + 1])
        if handler.server.proxy.released.wait(0.05):
            handler.close_connection = True
            return


def other_bytes(handler: _Handler, answer: Answer) -> None:
    middle = len(answer.body) // 2
    handler._pass_on(answer, answer.body[:middle] + bytes(len(answer.body) - middle))


def other_range(handler: _Handler, answer: Answer) -> None:
    """It says itself that it is not what was asked for."""
    if "Content-Range" in answer.headers:
        size = answer.headers["Content-Range"].rpartition("/")[2]
        answer.headers["Content-Range"] = f"bytes 7-{6 + len(answer.body)}/{size}"
    handler._pass_on(answer, answer.body)


def no_range(handler: _Handler, answer: Answer) -> None:
    """All of it, whatever part was asked for."""
    if handler.command == "GET":
        whole = handler.server.proxy.written[urlsplit(handler.path).path]
        answer = Answer(200, [*answer.headers.items(), ("Content-Length", str(len(whole)))], whole)
        del answer.headers["Content-Range"]
    handler._pass_on(answer, answer.body)


def other_object(handler: _Handler, answer: Answer) -> None:
    """Something else was put there meanwhile, and the store does not heed ``If-Match``."""
    if handler.command == "GET":
        answer.headers["ETag"] = '"00000000000000000000000000000000"'
    handler._pass_on(answer, answer.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    allow_reuse_address = True
    proxy: Proxy

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none."""

    def cut_all(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Proxy:
    """``url`` leads to the real store; what is asked of keys with ``about`` in them goes wrong as ``fault`` says."""

    def __init__(self, real: str, about: str = "build.tar.zst") -> None:
        self.real = urlsplit(real).netloc
        self.about = about
        self.fault: Fault | None = None
        #: What was written through it, by path.
        self.written: dict[str, bytes] = {}
        self.released = threading.Event()
        self._port = 0
        self._open()
        self.url = f"http://127.0.0.1:{self._port}"

    def _open(self) -> None:
        self._server = _Server(("127.0.0.1", self._port))
        self._server.proxy = self
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _shut(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
        self._server.cut_all()

    def breaks(self, fault: Fault | None) -> None:
        """None: nobody listens any more."""
        self.released = threading.Event()
        if fault is None:
            self._shut()
        self.fault = fault

    def heals(self, *, listens: bool = True) -> None:
        self.released.set()
        self.fault = None
        if not listens:
            self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._shut()
