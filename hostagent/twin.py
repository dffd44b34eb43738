"""One file of a release as it is unpacked: written, or linked to where an earlier release has the very same.

What an earlier release has is compared: byte by byte, or by the digest that it must have, or by its seal where that is
whole (``hostagent.seals``). Only for releases that nobody but us can write to: through a link, a change would be seen
in both.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from hostagent import seals
from hostagent.contents import Seal
from hostagent.tar import TarMember

#: Bytes that are looked at together.
_PIECE = 1024 * 1024


def linked(old: str, new: str, member: TarMember, seal: Seal | None) -> bool:
    """``new`` is a link to ``old``, which is what it should be; False, and nothing, where it is not.

    Where its seal is broken it is read.
    """
    try:
        status = os.lstat(old)
        if not seals.intact(status, seal, member.size, member.mode) and not _has(old, member):
            return False
        os.link(old, new, follow_symlinks=False)
        if os.lstat(new).st_mtime_ns == status.st_mtime_ns:
            return True
        Path(new).unlink()  # somebody wrote to it just then
    except OSError:  # it cannot be read any more, or has as many links as the file system allows
        pass
    return False


def _has(path: str, member: TarMember) -> bool:
    found = _open(path, member.size, member.mode)
    if found is None:
        return False
    seen = hashlib.sha256()
    with found:
        while data := found.read(min(member.size + 1, _PIECE)):
            seen.update(data)
    return seen.digest() == member.digest


class File:
    """``write`` what belongs in it, then ``close``. ``old`` is where the same may be; None: nowhere."""

    def __init__(self, path: str, mode: int, size: int, old: str | None) -> None:
        self._path = path
        self._mode = mode
        self._size = size
        self._same = 0
        self._old_path = old
        self._old = _open(old, size, mode) if old is not None and size else None
        self._new = self._create() if self._old is None else None

    def write(self, data: bytes) -> None:
        if self._new is None and self._old is not None:
            if self._old.read(len(data)) == data:
                self._same += len(data)
                return
            self._new = self._write_out()
        if self._new is not None:
            self._new.write(data)

    def close(self, *, whole: bool) -> None:
        """``whole``: all of it was written. Without that nothing is linked."""
        try:
            if self._new is None and whole and self._same == self._size and self._old_path is not None:
                try:
                    os.link(self._old_path, self._path, follow_symlinks=False)
                except OSError:  # as many links as the file system allows, or none
                    self._new = self._write_out()
        finally:
            for f in (self._new, self._old):
                if f is not None:
                    f.close()

    def _create(self) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, self._mode)
        os.fchmod(fd, self._mode)
        return os.fdopen(fd, "wb")

    def _write_out(self) -> BinaryIO:
        """What was the same so far, in a file of its own."""
        new = self._create()
        if self._old is not None:
            self._old.seek(0)
            left = self._same
            while left and (piece := self._old.read(min(left, _PIECE))):
                new.write(piece)
                left -= len(piece)
        return new


def _open(path: str, size: int, mode: int) -> BinaryIO | None:
    """A regular file of ours of that size and mode; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(fd)
    ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == mode
    if not ours or found.st_size != size:
        os.close(fd)
        return None
    return os.fdopen(fd, "rb", buffering=0)
