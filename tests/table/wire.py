"""A client that sends bytes as they are, over one connection that it keeps as long as the server does."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from tests.table.request import Request


@dataclass(frozen=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name]

    def first(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


class Closed(Exception):
    """The server closed before it answered."""


class Wire:
    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        self._address = (host, int(port))
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, request: Request) -> Response:
        """Its answer; status 0 where there is none. An idle connection may just have been closed: then on a new one."""
        fresh = self._socket is None
        try:
            return self._once(request)
        except (Closed, ConnectionError, TimeoutError) as e:
            self.close()
            if fresh or isinstance(e, TimeoutError):
                return Response(0, (), repr(e).encode())
            return self.ask(request)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _once(self, request: Request) -> Response:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=5)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError):  # it may refuse before it has read all; then it has answered
            self._socket.sendall(request.raw())
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            if status != 100:
                break
        pairs = (line.partition(":") for line in lines[1:])
        headers = tuple((k, v.strip()) for k, _, v in pairs)
        said = {k.lower(): v for k, v in headers}
        body = b"" if request.method == "HEAD" or status in (204, 304) else self._body(said)
        if said.get("connection", "").lower() == "close" or lines[0].startswith("HTTP/1.0"):
            self.close()
        return Response(status, headers, body)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
            return body
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        with contextlib.suppress(Closed):
            while True:
                self._more()
        return self._exactly(len(self._rest))

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _more(self) -> None:
        assert self._socket is not None
        got = self._socket.recv(1 << 16)
        if not got:
            raise Closed
        self._rest += got
