"""Archives that this host has unpacked and keeps, so that of the next build it fetches only what is in none of them.

What is put together of them is hashed as a whole by whoever asked for it. Where that shows that a disk forgot, they are
asked again, to look at each chunk: it costs bytes, never a wrong archive. Touches the disk, never the store.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet import chunks
from fleet.chunks import BadIndex, Chunk
from fleet.download import Sink
from fleet.files import read_or_none, sync_directory, write_atomic
from hostagent.layout import Layout, index_of

#: Bytes between two gaps below which one request for both costs less.
_NEAR = 32 * 1024


class Kept:
    """Of one service. ``most``: how many archives are kept; none where it is 0."""

    def __init__(self, layout: Layout, service: str, most: int) -> None:
        self._layout = layout
        self._service = service
        self._most = most

    def keep(self, build: str, archive: Path, index: bytes | None) -> None:
        """The archive was unpacked; without an index nobody will ever look into it. Older ones make room."""
        if index is None or not self._most:
            archive.unlink(missing_ok=True)
            return
        to = self._layout.kept(self._service, build)
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(index_of(to), index)
        archive.replace(to)
        sync_directory(to.parent)
        for old in self._archives()[self._most :]:
            self._remove(old)

    def forget(self, build: str) -> None:
        self._remove(self._layout.kept(self._service, build))

    def local(self, wanted: Sequence[Chunk], *, doubting: bool = False) -> Here:
        """What of an archive of these chunks is here; ``doubting``: each is looked at before it is taken."""
        found: dict[bytes, tuple[Path, Chunk]] = {}
        for archive in self._archives():
            index = read_or_none(index_of(archive))
            try:
                own = chunks.decode(index or b"", archive.stat().st_size)
            except BadIndex:
                continue  # damaged: as good as not kept
            for c in own:
                found.setdefault(c.digest, (archive, c))
        return Here(wanted, found, doubting)

    def _archives(self) -> list[Path]:
        """The newest first."""
        directory = self._layout.kept(self._service, "x").parent
        return sorted(directory.glob("*.tar.zst"), key=lambda p: p.stat().st_mtime_ns, reverse=True)

    def _remove(self, archive: Path) -> None:
        archive.unlink(missing_ok=True)
        index_of(archive).unlink(missing_ok=True)


@dataclass(frozen=True)
class Part:
    """A ``fleet.download.Part``."""

    gaps: Sequence[tuple[int, int]]
    fill: Callable[[Sink], list[tuple[int, int]]]


class Here:
    """A ``fleet.download.Local``; safe from several threads."""

    def __init__(self, wanted: Sequence[Chunk], found: dict[bytes, tuple[Path, Chunk]], doubting: bool) -> None:
        self._wanted = wanted
        self._found = found
        self._doubting = doubting
        self._files: dict[Path, BinaryIO] = {}
        self._lock = threading.Lock()
        #: Something was taken from here.
        self.used = False

    def _opened(self, archive: Path) -> int:
        """Once for all of its chunks."""
        with self._lock:
            if archive not in self._files:
                self._files[archive] = archive.open("rb")
            return self._files[archive].fileno()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def part(self, start: int, end: int) -> Part:
        gaps: list[tuple[int, int]] = []
        taken: list[Chunk] = []
        spared: list[Chunk] = []  # since the last gap
        for chunk in chunks.within(self._wanted, start, end):
            if chunk.digest in self._found:
                spared.append(chunk)
                continue
            low, high = max(start, chunk.start), min(end, chunk.end)
            if gaps and low - gaps[-1][1] < _NEAR:
                gaps[-1] = (gaps[-1][0], high)  # what lies between comes with it
            else:
                taken += spared
                gaps.append((low, high))
            spared = []
        return Part(gaps, lambda sink: self._take([*taken, *spared], start, end, sink))

    def _take(self, spared: Sequence[Chunk], start: int, end: int, sink: Sink) -> list[tuple[int, int]]:
        """What cannot be had after all is a gap, too."""
        gaps: list[tuple[int, int]] = []
        for run in [[c] for c in spared] if self._doubting else self._runs(spared):
            low, high = max(start, run[0].start), min(end, run[-1].end)
            if (self._checked if self._doubting else self._copied)(run[0], low, high, sink):
                self.used = True
            else:
                gaps.append((low, high))
        return gaps

    def _runs(self, spared: Sequence[Chunk]) -> list[list[Chunk]]:
        """Those that lie side by side there, too."""
        runs: list[list[Chunk]] = []
        for chunk in spared:
            if runs and runs[-1][-1].end == chunk.start and self._follows(runs[-1][-1], chunk):
                runs[-1].append(chunk)
            else:
                runs.append([chunk])
        return runs

    def _follows(self, before: Chunk, chunk: Chunk) -> bool:
        (archive, first), (other, second) = self._found[before.digest], self._found[chunk.digest]
        return archive == other and first.end == second.start and first.length == before.length

    def _copied(self, first: Chunk, low: int, high: int, sink: Sink) -> bool:
        archive, there = self._found[first.digest]
        try:
            return sink.copy(low, self._opened(archive), there.start + low - first.start, high - low)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False  # of the kept one; were it the other's, the next write would say so

    def _checked(self, chunk: Chunk, low: int, high: int, sink: Sink) -> bool:
        archive, there = self._found[chunk.digest]
        try:
            frame = os.pread(self._opened(archive), there.length, there.start)
        except OSError:
            return False
        if len(frame) != chunk.length or chunks.digest_of(frame) != chunk.digest:
            return False
        sink.write(low, frame[low - chunk.start : high - chunk.start])
        return True
