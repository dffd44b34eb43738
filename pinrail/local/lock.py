"""One command at a time changes a local fleet: a lock in its directory that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = ".lock"


class Locked(Exception):
    """Somebody else holds it; ``pid`` says who, where that could be read."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Raises Locked, and FileNotFoundError where the directory is gone."""
    path = directory / FILE
    fd = _open_locked(path)
    try:
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _open_locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise Locked(int(said) if said.isdigit() else None) from None
        if _same(fd, path):
            return fd
        os.close(fd)  # it was removed, with the fleet, between the two calls


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
