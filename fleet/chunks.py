"""Which chunks an archive is made of: what lets a host fetch only those that it has not got. Pure.

A build's archive is a row of zstd frames, one for each content-defined chunk of its tar stream. The same content gives
the same frame wherever it stands, so a frame that an earlier archive holds need not be fetched again. Nobody trusts an
index: what is put together by it must have the digest that the manifest promises.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HEAD = b"pinrail chunks 1\n"
_ENTRY = struct.Struct(">16sI")
DIGEST_BYTES = 16


class BadIndex(ValueError):
    """Not an index of such an archive. Says why."""


@dataclass(frozen=True)
class Chunk:
    #: Beginning of the SHA-256 of the frame.
    digest: bytes
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def digest_of(frame: bytes) -> bytes:
    return hashlib.sha256(frame).digest()[:DIGEST_BYTES]


def encode(chunks: Iterable[Chunk]) -> bytes:
    return _HEAD + b"".join(_ENTRY.pack(c.digest, c.length) for c in chunks)


def decode(data: bytes, size: int) -> tuple[Chunk, ...]:
    """The chunks of an archive of ``size`` bytes, in their order, without gaps. Raises BadIndex."""
    if not data.startswith(_HEAD):
        raise BadIndex("not an index of chunks")
    rest = data[len(_HEAD) :]
    if len(rest) % _ENTRY.size:
        raise BadIndex("an index of chunks that was cut off")
    chunks, at = [], 0
    for digest, length in _ENTRY.iter_unpack(rest):
        if not length:
            raise BadIndex("an index with a chunk of no bytes")
        chunks.append(Chunk(digest, at, length))
        at += length
    if at != size:
        raise BadIndex(f"an index of an archive of {at} bytes, and the archive has {size}")
    return tuple(chunks)


def within(chunks: Sequence[Chunk], start: int, end: int) -> Sequence[Chunk]:
    """Those that have bytes between ``start`` and ``end``."""
    low, high = 0, len(chunks)
    while low < high:
        middle = (low + high) // 2
        if chunks[middle].end <= start:
            low = middle + 1
        else:
            high = middle
    last = low
    while last < len(chunks) and chunks[last].start < end:
        last += 1
    return chunks[low:last]
