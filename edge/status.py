"""The agent's own HTTP port: ``/metrics`` for Prometheus and ``/healthz`` for whoever supervises the agent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from fleet.config import BadConfig


def serve(listen: str, registry: CollectorRegistry, alive: Callable[[], str | None]) -> ThreadingHTTPServer:
    """Answer on ``listen`` from a thread until ``shutdown``. ``alive`` is why the agent is not well, or None."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/healthz":
                trouble = alive()
                self._answer(503 if trouble else 200, "text/plain; charset=utf-8", f"{trouble or 'ok'}\n".encode())
            else:
                self._answer(404, "text/plain; charset=utf-8", b"/metrics or /healthz\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not news."""

    host, _, port = listen.rpartition(":")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except (OSError, ValueError) as e:
        raise BadConfig(f"metrics = {listen!r}: {e}") from e
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
