"""The logs of a local fleet's parts as one: read, merged by time, followed. Owns how a file is read; prints nothing.

A part's file is what supervisord kept of its output: ``edge-1.log``, and ``edge-1.log.1`` with what is older. Lines of
one file stay in their order whatever their clocks say. A line without a time of its own has that of the one above it.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from fleet import log

#: Characters of a line that are looked at; nobody writes longer ones on purpose.
MOST = 64 * 1024
#: How others write when: Prometheus (``ts=``) and ZooKeeper in UTC, supervisord by the machine's clock.
_DATED = re.compile(r"(?:ts=|\[)?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z?)")
_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Entry:
    """One line of one part. ``line`` is what our own parts wrote; ``of`` that, or the one that this goes on with."""

    part: str
    at: float
    text: str
    line: log.Line | None = None
    of: log.Line | None = None


@dataclass(frozen=True)
class Wanted:
    """Which lines; None for whichever."""

    service: str | None = None
    rollout: int | None = None
    since: float | None = None

    def __call__(self, entry: Entry) -> bool:
        if self.since is not None and entry.at < self.since:
            return False
        said = entry.of.pairs if entry.of else {}
        return (self.service is None or said.get("service") == self.service) and (
            self.rollout is None or said.get("rollout") == str(self.rollout)
        )


def since(text: str, now: float) -> float:
    """``90s``, ``10m``, ``2h``, ``1d`` ago, or a time as the logs have it. Raises ValueError."""
    if found := _SPAN.fullmatch(text):
        return now - int(found[1]) * _SECONDS[found[2]]
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parts(directory: Path) -> dict[str, Path]:
    """Name -> its newest file."""
    return {p.name.removesuffix(".log"): p for p in sorted(directory.glob("*.log"))}


def _when(text: str) -> float | None:
    found = _DATED.match(text)
    if found is None:
        return None
    day, clock, fraction, utc = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}")
        zoned = moment.astimezone() if text[:1].isdigit() and not utc else moment.replace(tzinfo=UTC)
        return zoned.timestamp() + float(f"0.{fraction or 0}")
    except (ValueError, OverflowError, OSError):
        return None


class Reader:
    """Turns the bytes of one part's log, as they come, into entries. The end of a line may come later."""

    def __init__(self, part: str, at: float = 0.0) -> None:
        """``at``: for lines before the first that has a time."""
        self._part = part
        self._at = at
        self._of: log.Line | None = None
        self._rest = b""

    def feed(self, data: bytes) -> list[Entry]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [self._entry(line) for line in whole]

    def end(self) -> list[Entry]:
        """What stands there without an end: somebody's last words, or a line that is being written."""
        rest, self._rest = self._rest, b""
        return [self._entry(rest)] if rest else []

    def _entry(self, raw: bytes) -> Entry:
        text = raw[:MOST].decode(errors="replace").rstrip("\r")
        line, when = log.parse(text), _when(text)
        if when is not None:
            self._at = max(self._at, when)
        if line is not None or not text.startswith((" ", "\t")):
            self._of = line
        return Entry(self._part, self._at, text, line, self._of)


class Log:
    """One part's log: what is kept of it, and then what is added, through rotations, no line twice."""

    def __init__(self, part: str, path: Path) -> None:
        self._path = path
        self._reader = Reader(part)
        self._file: BinaryIO | None = None

    def kept(self) -> list[Entry]:
        """All that there is, oldest first, but for a line whose end is still to come."""
        found: list[Entry] = []
        changed = 0.0
        with suppress(FileNotFoundError), self._path.with_name(f"{self._path.name}.1").open("rb") as before:
            found += self._reader.feed(before.read())
        self._open()
        if self._file:
            found += self._reader.feed(self._file.read())
            changed = os.fstat(self._file.fileno()).st_mtime
        # Lines before the first with a time are as old as that; a file that never says when is no older than this.
        return _dated(found, next((e.at for e in found if e.at), changed))

    def added(self, now: float) -> list[Entry]:
        """Whole lines only; one without a time is of ``now``."""
        found: list[Entry] = []
        for _ in range(2):  # what is left of the old file, then the new one
            if self._file:
                found += self._reader.feed(self._file.read())
            if not self._rotated():
                break
            found += self._reader.end()
            self.close()
            self._open()
        return _dated(found, now)

    def end(self, now: float) -> list[Entry]:
        """Nobody waits for the rest of a line any more."""
        return _dated(self._reader.end(), now)

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._file = self._path.open("rb")

    def _rotated(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        here = os.fstat(self._file.fileno())
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) or there.st_size < self._file.tell()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _dated(entries: Sequence[Entry], otherwise: float) -> list[Entry]:
    return [e if e.at else replace(e, at=otherwise) for e in entries]


def merged(logs: Iterable[Sequence[Entry]]) -> Iterator[Entry]:
    """By time; each part's in their own order."""
    return heapq.merge(*logs, key=lambda e: e.at)
