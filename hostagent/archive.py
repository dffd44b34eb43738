"""An archive on disk: read through once, found to be what was promised, and which frames it then is made of for sure.

What an index says of an archive is believed after every frame of it was hashed. Reads only.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import zstandard

from fleet.chunks import DIGEST_BYTES, Chunk

#: Bytes of a frame, packed and unpacked, up to which one is held in memory whole. Publishers' have 256 KiB at most.
FRAME_MAX = 4 * 1024 * 1024
#: Bytes that are read together.
_BATCH = 1024 * 1024
#: What whole chunks go beyond that by, mostly.
_SPARE = 256 * 1024
#: Batches that the second hash may be behind.
_AHEAD = 4


class WrongDigest(Exception):
    """``found`` is the digest that it has."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


@dataclass(frozen=True)
class Frame:
    #: All of its SHA-256, of which the index has the beginning.
    digest: bytes
    start: int
    length: int
    #: Bytes that it unpacks to.
    content: int


@dataclass(frozen=True)
class Verified:
    """That a file was read and had ``digest``; it is believed as long as the file is the same, by its ``seal``."""

    digest: str
    seal: tuple[int, ...]
    #: None: it has no index, or one that does not tell the truth.
    frames: tuple[Frame, ...] | None

    def of(self, fd: int, digest: str) -> bool:
        return (self.digest, self.seal) == (digest, seal(fd))


def seal(fd: int) -> tuple[int, ...]:
    """Another one after any write, by whatever name."""
    s = os.fstat(fd)
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


class GivenUp(Exception):
    """The rest of it will not come."""


class Growth:
    """How much of a file's beginning is there: one thread says so, another waits for it."""

    def __init__(self) -> None:
        self._there = -1
        self._given_up = False
        self._changed = threading.Condition()

    def reaches(self, end: int) -> None:
        with self._changed:
            self._there = max(self._there, end)
            self._changed.notify_all()

    def give_up(self) -> None:
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def wait(self, end: int) -> None:
        """The bytes before ``end`` are there, and the file for 0. Raises GivenUp."""
        with self._changed:
            self._changed.wait_for(lambda: self._given_up or self._there >= end)
            if self._given_up:
                raise GivenUp


def verify(
    fd: int, digest: str, chunks: Sequence[Chunk] | None, check: Callable[[int], None]
) -> tuple[Frame, ...] | None:
    """The file has that digest; its frames, where ``chunks`` are really what it is made of.

    ``check`` is called before it is read, up to where each time. Raises WrongDigest, OSError or what ``check`` raises.
    """
    whole = hashlib.sha256()
    frames: list[Frame | None] = []
    ahead: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "hash") as beside:
        for some, data in _batches(fd, chunks or (), check):
            ahead.append(beside.submit(whole.update, data))
            if len(ahead) > _AHEAD:
                ahead.popleft().result()
            frames += [_frame(c, data[c.start - some[0].start :][: c.length]) for c in some]
        while ahead:
            ahead.popleft().result()
    if (has := f"sha256:{whole.hexdigest()}") != digest:
        raise WrongDigest(has)
    true = [f for f in frames if f is not None]
    return tuple(true) if chunks is not None and len(true) == len(frames) == len(chunks) else None


def _batches(
    fd: int, chunks: Sequence[Chunk], check: Callable[[int], None]
) -> Iterator[tuple[Sequence[Chunk], memoryview]]:
    """All of the file, whole chunks at a time as long as there are any. What is given is good for ``_AHEAD`` more."""
    buffers = itertools.cycle([bytearray(_BATCH + _SPARE) for _ in range(_AHEAD + 1)])  # fresh memory costs a third

    def read(at: int, end: int) -> memoryview:
        check(end)
        buffer = next(buffers)
        data = memoryview(buffer if end - at <= len(buffer) else bytearray(end - at))[: end - at]
        return data[: os.preadv(fd, [data], at)]

    at = first = 0
    for n, c in enumerate(chunks, 1):
        if c.length > FRAME_MAX:
            break
        if c.end - at >= _BATCH or n == len(chunks):
            data = read(at, c.end)
            yield (chunks[first:n] if len(data) == c.end - at else ()), data
            at, first = at + len(data), n
    size = os.fstat(fd).st_size
    while at < size and (data := read(at, min(at + _BATCH, size))):
        yield (), data
        at += len(data)


def _frame(c: Chunk, data: memoryview) -> Frame | None:
    digest = hashlib.sha256(data).digest()
    if digest[:DIGEST_BYTES] != c.digest:
        return None
    try:
        content = zstandard.frame_content_size(data)
    except zstandard.ZstdError:
        return None
    return Frame(digest, c.start, c.length, content) if 0 < content <= FRAME_MAX else None
