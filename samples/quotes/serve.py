"""A service on Python's standard library. It is told where to listen and who it is, and ends what it began."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

BUILD = os.environ.get("PINRAIL_VERSION", "none")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(200 if self.path in ("/healthz", "/quotes") else 404, 0)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._say(200 if self.path == "/quotes" else 404, len(body))

    def _say(self, status: int, received: int) -> None:
        said = {"build": BUILD, "host": os.environ.get("PINRAIL_HOST", "here"), "pid": os.getpid(), "bytes": received}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"  # a unix socket's client has no address

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: nginx stands in front."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 128
    daemon_threads = False  # what was begun is waited for


def main() -> None:
    with Server(os.environ["SOCKET"], Handler) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
