"""A stream cut by its content into zstd frames, each on its own, so that what the next build shares is the same bytes.

The cuts are FastCDC's (2020, normalized), a pure function of the bytes; so are the frames, for one libzstd and level.
"""

from __future__ import annotations

from collections.abc import Callable

import zstandard
from pyfastcdc import FastCDC

from fleet.chunks import Chunk, digest_of

#: Bytes of a chunk before it is compressed: least, mean, most. Smaller ones would find more that is the same and
#: compress worse; these cost some percent of the archive's size.
LEAST, MEAN, MOST = 16 * 1024, 64 * 1024, 256 * 1024
#: Bytes that are looked at together.
_BATCH = 16 * MOST


class FrameWriter:
    """``write`` as often as there is something, then ``close`` once. Frames go to ``to`` as they are made."""

    def __init__(self, to: Callable[[bytes], object], *, level: int) -> None:
        self._to = to
        self._cutter = FastCDC(MEAN, min_size=LEAST, max_size=MOST)
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._held = bytearray()
        self._at = 0
        self._chunks: list[Chunk] = []

    def write(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= _BATCH:
            self._cut(final=False)

    def close(self) -> tuple[Chunk, ...]:
        """The chunks of all that was written, in order."""
        self._cut(final=True)
        return tuple(self._chunks)

    def _cut(self, *, final: bool) -> None:
        held = bytes(self._held)
        cuts = [(c.offset, c.offset + c.length) for c in self._cutter.cut_buf(held)]
        if not final:
            cuts.pop()  # it ends where the batch does, and not for what is in it
        for start, end in cuts:
            frame = self._compressor.compress(held[start:end])
            self._to(frame)
            self._chunks.append(Chunk(digest_of(frame), self._at, len(frame)))
            self._at += len(frame)
        self._held = bytearray(held[cuts[-1][1] :] if cuts else held)
