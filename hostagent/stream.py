"""The tar stream in an archive. Reads only.

An archive whose frames are known is unpacked one by one, from anywhere; any other from end to end. What is no zstd is
a BadArchive.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from typing import BinaryIO

import zstandard

from hostagent.archive import Frame
from hostagent.tar import BadArchive

#: Largest window that we give memory for; zstd's own default limit for decompression.
WINDOW_MAX = 128 * 1024 * 1024
_READ = 256 * 1024


class Plain:
    """Of no known frames."""

    def __init__(self, raw: BinaryIO) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
        self._reader = decompressor.stream_reader(raw, read_size=_READ, read_across_frames=True)

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as e:
            raise BadArchive(f"not a zstd archive, or a broken one: {e}") from e

    def seek(self, to: int) -> None:
        raise AssertionError("of an archive of no known frames nothing is known beforehand")


class Framed:
    """Of frames, each of which must unpack to what it says, all by itself."""

    def __init__(self, fd: int, frames: Sequence[Frame]) -> None:
        self._fd = fd
        self._frames = frames
        #: Where each begins in the stream, and where the stream ends.
        self.begins = [0]
        for f in frames:
            self.begins.append(self.begins[-1] + f.content)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
        self._at = 0
        self._held = (0, 0, b"")

    def read(self, size: int) -> bytes:
        start, end, data = self._held
        if not start <= self._at < end:
            if self._at >= self.begins[-1]:
                return b""
            start, end, data = self._held = self._unpacked(bisect.bisect_right(self.begins, self._at) - 1)
        piece = data[self._at - start :][:size]
        self._at += len(piece)
        return piece

    def seek(self, to: int) -> None:
        if to > self.begins[-1]:
            raise BadArchive("the archive ends in the middle of a file")
        self._at = to

    def _unpacked(self, n: int) -> tuple[int, int, bytes]:
        f = self._frames[n]
        try:
            packed = os.pread(self._fd, f.length, f.start)
            data = self._decompressor.decompress(packed, max_output_size=f.content, allow_extra_data=False)
        except zstandard.ZstdError as e:
            raise BadArchive(f"not a zstd archive, or a broken one: {e}") from e
        if len(data) != f.content:
            raise BadArchive("a frame that unpacks to something else than it says")
        return self.begins[n], self.begins[n + 1], data
