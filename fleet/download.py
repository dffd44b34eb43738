"""A download in ranges, several at once, that a later one goes on with, and that fetches only what is not here already.

Speaks to no store itself: ``Source`` is what it needs of one. The first range that fails for good stops the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from fleet.loop import Trouble
from fleet.ranges import PiecewiseFile

#: As far stores give little on one connection, and much on many.
WORKERS = 8
#: Threads that write what is here already, while others fetch. Two, into one file, wait for each other.
COPIERS = 1
#: Tries for one range, beside those that the store makes for the request itself.
TRIES = 3

Progress = Callable[[int], None]
#: Bytes that a source must give in each of its ``stall_seconds``.
CRAWL = 64 * 1024


class Cut(Trouble):
    """It ended too soon; what is there is kept, and the next download goes on with it."""


class Source(Protocol):
    """One object, as it was when the download began."""

    #: For people: which object, where.
    name: str

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Its bytes, in chunks. Raises Trouble where trying again may help, and ``final`` where not."""

    @property
    def final(self) -> type[Exception]: ...


class Sink(Protocol):
    """The download's file."""

    def write(self, at: int, data: bytes) -> None: ...

    def copy(self, at: int, fd: int, start: int, count: int) -> bool:
        """So many bytes of ``fd`` from ``start`` on; False where it has not got them, whatever was copied then."""


class Part(Protocol):
    """What of a piece of the object is here already."""

    @property
    def gaps(self) -> Sequence[tuple[int, int]]:
        """The ranges of it that are not."""

    def fill(self, sink: Sink) -> list[tuple[int, int]]:
        """Write what is; the ranges that could not be had after all."""


class Local(Protocol):
    """What of the object's bytes is here already."""

    def part(self, start: int, end: int) -> Part: ...


class _Nothing:
    """A ``Part`` of which nothing is here."""

    def __init__(self, start: int, end: int) -> None:
        self.gaps = ((start, end),)

    def fill(self, sink: Sink) -> list[tuple[int, int]]:
        return []


class Pace:
    """So many bytes a second at most, for all downloads that share it."""

    def __init__(self, bytes_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> float:
        """Seconds to wait before the next bytes, having just had ``count``."""
        with self._lock:
            now = self._clock()
            # What was not used is not saved up for later.
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now


@dataclass(frozen=True)
class Limits:
    #: Monotonic; after it the download is given up.
    deadline: float
    #: Seconds of waiting for a source that gives next to nothing.
    stall: float
    pace: Pace | None = None


def steady(chunks: Iterator[bytes], name: str, stall: float) -> Iterator[bytes]:
    """``chunks``, unless they only trickle: a silent source is found by its timeout, one that gives a byte now and then
    by nothing else. What their taker does meanwhile is not counted. Raises Trouble.
    """
    spent, got = 0.0, 0
    while True:
        began = time.monotonic()
        data = next(chunks, b"")
        spent += time.monotonic() - began
        got += len(data)
        if not data:
            return
        yield data
        if spent > stall:
            if got < CRAWL:
                raise Trouble(f"{name} gave {got} bytes in {spent:.1f} s")
            spent, got = 0.0, 0


class Download:
    def __init__(
        self,
        source: Source,
        file: PiecewiseFile,
        local: Local | None,
        progress: Progress | None,
        beginning: Progress | None,
        limits: Limits,
    ) -> None:
        self._source = source
        self._file = file
        self._local = local
        self._progress = progress
        self._beginning = beginning
        self._limits = limits
        self._got = self._fetched = 0
        #: Of each piece that is begun, by its start: how much of it is still under way.
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, size: int) -> int:
        """Fill the file; the bytes that were fetched for it. ``progress`` raising ends it, too."""
        pieces = self._file.missing()
        self._count(size - sum(end - start for start, end in pieces))
        self._tell()
        parts = {start: self._local.part(start, end) if self._local else _Nothing(start, end) for start, end in pieces}
        self._open = {start: len(part.gaps) + 1 for start, part in parts.items()}
        with (
            ThreadPoolExecutor(WORKERS, thread_name_prefix="download") as fetching,
            ThreadPoolExecutor(COPIERS, thread_name_prefix="copy") as copying,
        ):
            futures = [
                *(fetching.submit(self._gap, start, gap) for start, part in parts.items() for gap in part.gaps),
                *(copying.submit(self._fill, start, part) for start, part in parts.items()),
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            self._stop.set()
            for pool in (fetching, copying):
                pool.shutdown(wait=False, cancel_futures=True)
        for future in done:
            future.result()
        return self._fetched

    def _gap(self, piece: int, gap: tuple[int, int]) -> None:
        self._range(*gap)
        self._done(piece)

    def _fill(self, piece: int, part: Part) -> None:
        for gap in part.fill(self):
            self._range(*gap)
        self._done(piece)

    def _done(self, piece: int) -> None:
        """Something of ``piece`` is there."""
        with self._lock:
            self._open[piece] -= 1
            if self._open[piece]:
                return
        self._file.complete(piece)
        self._tell()

    def _tell(self) -> None:
        if self._beginning:
            with self._lock:
                self._beginning(self._file.beginning())

    def _range(self, start: int, end: int) -> None:
        at = start
        for attempt in range(1, TRIES + 1):
            try:
                for data in steady(self._source.read(at, end), self._source.name, self._limits.stall):
                    self.write(at, data)
                    at += len(data)
                    self._fetched_some(len(data))
                if at == end:
                    return
                raise Cut(f"{self._source.name} ended early")
            except self._source.final:
                raise
            except Trouble:
                if attempt == TRIES or self._stop.is_set():
                    raise

    def write(self, at: int, data: bytes) -> None:
        self._check()
        self._file.write(at, data)
        self._count(len(data))

    def copy(self, at: int, fd: int, start: int, count: int) -> bool:
        self._check()
        whole = self._file.copy(at, fd, start, count)
        if whole:
            self._count(count)
        return whole

    def _fetched_some(self, count: int) -> None:
        with self._lock:
            self._fetched += count
        if self._limits.pace:
            left = max(0.0, self._limits.deadline - time.monotonic())
            self._stop.wait(min(left, self._limits.pace.take(count)))

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cut(f"the download of {self._source.name} was given up")
        if time.monotonic() > self._limits.deadline:
            raise Cut(f"the download of {self._source.name} took too long; it can go on")

    def _count(self, n: int) -> None:
        with self._lock:
            self._got += n
            if self._progress:
                self._progress(self._got)
