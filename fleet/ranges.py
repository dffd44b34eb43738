"""A file that is filled out of order, piece by piece, and that a later process can go on with. Touches only the disk.

Beside the file lies ``<name>.ranges``: a first line that says what is being filled in, then the number of each piece
that is complete. A kill at any moment costs at most the pieces in flight. After a power cut a noted piece may be
missing from the disk all the same: who fills the file checks its digest, and removes it where that is wrong.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

#: Bytes that are copied at once.
_COPY = 4 * 1024 * 1024


class PiecewiseFile:
    """``identity`` (an entity tag, say) tells a changed source: pieces of another identity or size are not kept."""

    def __init__(self, path: Path, *, size: int, identity: str, piece: int) -> None:
        self._path = path
        self._journal = path.with_name(path.name + ".ranges")
        self._size = size
        self._piece = piece
        self._head = json.dumps({"size": size, "identity": identity, "piece": piece}) + "\n"
        self._lock = threading.Lock()
        self._done = self._read_journal()
        self._first = 0  # that may not be complete
        fresh = not self._done
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
        self._fd = os.open(path, flags, 0o644)
        os.ftruncate(self._fd, size)
        if fresh:
            self._journal.write_text(self._head)

    def _read_journal(self) -> set[int]:
        if not self._path.exists() or self._path.stat().st_size != self._size or not self._journal.exists():
            return set()
        head, _, rest = self._journal.read_text().partition("\n")
        if head + "\n" != self._head:
            return set()
        complete = rest.rpartition("\n")[0].split()  # a torn last line counts for nothing
        return {int(n) for n in complete if n.isdigit() and int(n) * self._piece < self._size}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._fd)

    def missing(self) -> list[tuple[int, int]]:
        """``(start, end)`` of every piece that is not complete; ``end`` is exclusive."""
        starts = range(0, self._size, self._piece)
        return [(s, min(s + self._piece, self._size)) for n, s in enumerate(starts) if n not in self._done]

    def beginning(self) -> int:
        """How many bytes from the first on are there."""
        with self._lock:
            while self._first * self._piece < self._size and self._first in self._done:
                self._first += 1
            return min(self._first * self._piece, self._size)

    def write(self, offset: int, data: bytes) -> None:
        """Safe from several threads, as long as no two write the same piece."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def copy(self, offset: int, fd: int, start: int, count: int) -> bool:
        """As ``write``, from another file and without looking at it. False where that ends too soon."""
        while count:
            done = self._copy(fd, start, min(count, _COPY), offset)
            if not done:
                return False
            start, offset, count = start + done, offset + done, count - done
        return True

    def _copy(self, fd: int, start: int, count: int, offset: int) -> int:
        try:
            return os.copy_file_range(fd, self._fd, count, start, offset)
        except OSError as e:
            if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        data = os.pread(fd, count, start)  # another disk, or one that cannot
        self.write(offset, data)
        return len(data)

    def complete(self, start: int) -> None:
        """The piece that begins at ``start`` is whole."""
        with self._lock, self._journal.open("a") as journal:
            journal.write(f"{start // self._piece}\n")
            self._done.add(start // self._piece)

    def finish(self) -> None:
        """Every piece is there: make the file durable, forget the journal."""
        if left := self.missing():
            raise AssertionError(f"{self._path}: {len(left)} pieces are missing")
        os.fsync(self._fd)
        self._journal.unlink(missing_ok=True)
