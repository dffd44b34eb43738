"""Ending another process's connections, chosen by where they go. Owns nothing; touches the kernel only.

Varnish 7.1 has no command that ends one session. The kernel can: whoever may trace the process can borrow one of its
sockets (pidfd_getfd, Linux 5.6) and shut it down, which both ends see as an ordinary end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Container
from pathlib import Path

_PIDFD_GETFD = 438  # the same on every architecture


def cut(pid: int, endpoints: Container[str]) -> int:
    """Shut down each connection of process ``pid`` to one of ``endpoints`` (``ADDRESS:PORT``); how many there were.

    Raises OSError where the process is gone or this one may not do that to it.
    """
    done = 0
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(entry.readlink()).startswith("socket:"):
                    done += _cut_one(process, int(entry.name), endpoints)
    finally:
        os.close(process)
    return done


def _cut_one(process: int, fd: int, endpoints: Container[str]) -> bool:
    borrowed = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, fd, 0)
    if borrowed < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:  # it has been closed meanwhile
            return False
        raise OSError(code, os.strerror(code))
    with socket.socket(fileno=borrowed) as s:
        if s.family not in (socket.AF_INET, socket.AF_INET6) or s.type != socket.SOCK_STREAM:
            return False
        try:
            peer = s.getpeername()
            if f"{peer[0]}:{peer[1]}" not in endpoints:
                return False
            s.shutdown(socket.SHUT_RDWR)
        except OSError:  # not connected, or not any more
            return False
    return True
