"""A small host: stamps its answers, and is slow, sick or a liar as a test wants it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fleet.model import Endpoint, Member

#: What a host answers for ``/file``, and its entity tag.
FILE = b"0123456789"
ETAG = '"digits"'


class Backend:
    """One host's port: answers for ``version``, stamps it, can be slow, can lie."""

    def __init__(self, version: str, stamp: str | None = None) -> None:
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                if self.path != "/healthz":
                    backend.asked.append(self.path)
                    backend.clients.append(self.headers.get("X-Forwarded-For", ""))
                if self.headers.get("Upgrade"):
                    self._echo()
                    return
                if self.path.startswith("/slow"):
                    backend.slow_began.set()
                    backend.release.wait(20)
                while backend.hangs.is_set() and self.path == "/healthz":
                    time.sleep(0.05)
                if backend.drops and self.path != "/healthz":
                    self.close_connection = True
                elif backend.sick and self.path == "/healthz":
                    self._say(503, b"sick")
                elif self.path.startswith("/status/"):
                    self._say(int(self.path.rsplit("/", 1)[1]), b"as you wish")
                elif self.path == "/file":
                    self._file()
                elif self.path == "/parts":
                    self._parts()
                else:
                    self._say(200, json.dumps({"build": backend.version}).encode())

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                backend.asked.append(f"{self.command} {self.path}")
                got = len(self.rfile.read(length))
                if backend.drops:
                    self.close_connection = True
                else:
                    self._say(200, json.dumps({"build": backend.version, "bytes": got}).encode())

            do_PUT = do_POST

            def _echo(self) -> None:
                """A websocket as far as a proxy can tell: both ways, until either end has enough."""
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                if backend.stamp is not None:
                    self.send_header("x-served-version", backend.stamp)
                self.end_headers()
                self.close_connection = True
                while got := self.connection.recv(1 << 16):
                    self.wfile.write(got)

            def _file(self) -> None:
                """As a file server has one: asked for in ranges, again only where it changed, or for its size."""
                if self.headers.get("If-None-Match") == ETAG:
                    self._head(304, {"ETag": ETAG})
                elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                    first, last = map(int, found.groups())
                    part = FILE[first : last + 1]
                    at = f"bytes {first}-{last}/{len(FILE)}"
                    self._head(206, {"ETag": ETAG, "Content-Range": at, "Content-Length": str(len(part))})
                    self.wfile.write(part)
                else:
                    self._head(200, {"ETag": ETAG, "Accept-Ranges": "bytes", "Content-Length": str(len(FILE))})
                    if self.command != "HEAD":
                        self.wfile.write(FILE)

            do_HEAD = do_GET

            def _parts(self) -> None:
                """An answer whose end is not known when it begins, and comes when ``release`` is set."""
                self._head(200, {"Transfer-Encoding": "chunked"})
                for part in (b"first", b"last"):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                    backend.release.wait(20)
                self.wfile.write(b"0\r\n\r\n")

            def _head(self, status: int, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                if backend.stamp is not None:
                    self.send_header("x-served-version", backend.stamp)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if backend.stamp is not None:
                    self.send_header("x-served-version", backend.stamp)
                cached = self.path.startswith("/cached")
                self.send_header("Cache-Control", "max-age=600" if cached else "no-store")
                for cookie in backend.cookies:
                    self.send_header("Set-Cookie", cookie)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.version = version
        self.stamp: str | None = stamp or version
        self.sick = False
        #: It takes requests, probes aside, and closes without a word.
        self.drops = False
        #: Set: probes wait until it is cleared, or time out.
        self.hangs = threading.Event()
        self.cookies: list[str] = []
        self.asked: list[str] = []
        #: Who asked, as the edge says.
        self.clients: list[str] = []
        self.release = threading.Event()
        self.slow_began = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def member(self) -> Member:
        return Member(serviceEndpoint=Endpoint(host="127.0.0.1", port=self.port), name="host")

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
