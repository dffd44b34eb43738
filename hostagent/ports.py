"""Loopback ports for processes that do not listen on unix sockets."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Container

#: Below what Linux gives to outgoing connections, so that nobody takes a process's port while it restarts.
RANGE = range(20000, 30000)


def free(count: int, taken: Container[str], key: str) -> list[int]:
    """Up to ``count`` ports that nothing listens on; none of ``taken`` (as ``127.0.0.1:port``).

    Looks from a place that ``key`` decides: hosts that share a machine look at the same time, and in other places.
    """
    found: list[int] = []
    start = zlib.crc32(key.encode()) % len(RANGE)
    for port in (*RANGE[start:], *RANGE[:start]):
        if len(found) == count:
            break
        if f"127.0.0.1:{port}" not in taken and _bindable(port):
            found.append(port)
    return found


def _bindable(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
