"""HTTP on this machine: a connection to a TCP port or to a unix socket, under a deadline."""

from __future__ import annotations

import http.client
import socket


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(endpoint: str, timeout: float) -> http.client.HTTPConnection:
    """``unix:/path`` or ``host:port``; ``timeout`` seconds bound each wait for the other side."""
    if endpoint.startswith("unix:"):
        return _UnixConnection(endpoint.removeprefix("unix:"), timeout)
    return http.client.HTTPConnection(endpoint, timeout=timeout)
