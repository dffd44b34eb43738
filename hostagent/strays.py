"""Processes that a pool's program left behind by leaving its process group: known by the mark in their environment.

What has thrown its environment away too is not found; it keeps no slot from being filled, but for a port that it holds.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

#: Its value is a path, and so no other host's that runs on this machine.
MARK = "PINRAIL_POOL"
#: Seconds that the kernel may take to end what was killed.
_GRACE = 3.0


def end(pool: str) -> list[int]:
    """Kill all that carry that mark. Returns what still lives: normally nothing."""
    deadline = time.monotonic() + _GRACE
    while (alive := _kill(pool)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _kill(pool: str) -> list[int]:
    mark = f"{MARK}={pool}".encode()
    return [pid for p in Path("/proc").iterdir() if p.name.isdigit() and _killed(pid := int(p.name), mark)]


def _killed(pid: int, mark: bytes) -> bool:
    """Held by a descriptor, so that what is killed is what was looked at and no later process of the same number."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:  # it has ended, or is somebody else's
        return False
    finally:
        os.close(fd)
    return True
