"""What an archive that was unpacked holds, and where: of the next one, the members that are the same are known unread.

A member is the same where all frames that it lies in are the same. That is so of an archive, whatever became of the
release that was made from it; what lies in a release is looked at by ``hostagent.twin``.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import zstandard

from hostagent.archive import Frame
from hostagent.tar import TarMember

_HEAD = b"pinrail contents 1\n"
#: Inode, and when its content and it itself last changed (nanoseconds). See ``hostagent.seals``.
Seal: TypeAlias = tuple[int, int, int]
#: Members above which keeping this costs more memory than an agent should take.
MEMBERS_MAX = 200_000
_BYTES_MAX = 512 * 1024 * 1024


@dataclass(frozen=True)
class Contents:
    #: Digest of each frame, and the bytes that it unpacks to.
    frames: tuple[tuple[bytes, int], ...]
    #: In their order, each file with its digest.
    members: tuple[TarMember, ...]
    #: Of each file of the release that was made of it, by name.
    seals: Mapping[str, Seal] = field(default_factory=dict)

    def encode(self) -> bytes:
        frames = [[digest.hex(), size] for digest, size in self.frames]
        members = [
            [m.start, m.data, m.name, m.kind, m.size, m.executable, m.target, m.digest.hex()] for m in self.members
        ]
        body = zstandard.compress(json.dumps([frames, members, self.seals]).encode(), 3)
        return _HEAD + hashlib.sha256(body).digest() + body


def decode(raw: bytes | None) -> Contents | None:
    """None for anything but what ``encode`` made."""
    if raw is None or not raw.startswith(_HEAD):
        return None
    checksum, body = raw[len(_HEAD) :][:32], raw[len(_HEAD) + 32 :]
    if hashlib.sha256(body).digest() != checksum:
        return None
    frames, members, seals = json.loads(zstandard.ZstdDecompressor().decompress(body, max_output_size=_BYTES_MAX))
    return Contents(
        tuple((bytes.fromhex(digest), size) for digest, size in frames),
        tuple(
            TarMember(name, kind, size, executable, target, start, data, bytes.fromhex(digest))
            for start, data, name, kind, size, executable, target, digest in members
        ),
        {name: (inode, written, changed) for name, (inode, written, changed) in seals.items()},
    )


class Same:
    """Those members of an archive of ``frames`` that ``earlier`` holds too."""

    def __init__(self, frames: Sequence[Frame], earlier: Contents) -> None:
        self._frames = [f.digest for f in frames]
        self._begins = _begins([f.content for f in frames])
        self._theirs = [digest for digest, _ in earlier.frames]
        begins = _begins([size for _, size in earlier.frames])
        #: By the frame that it begins in, and where in that.
        self._members: dict[tuple[bytes, int], tuple[int, int, TarMember]] = {}
        for m in earlier.members:
            first = _at(begins, m.start)
            last = _at(begins, m.end - 1)
            self._members[self._theirs[first], m.start - begins[first]] = (first, last, m)

    def at(self, start: int) -> TarMember | None:
        """The member that begins at ``start`` of the stream, where it is a known one."""
        n = _at(self._begins, start)
        if n >= len(self._frames):
            return None
        found = self._members.get((self._frames[n], start - self._begins[n]))
        if found is None:
            return None
        first, last, m = found
        if self._frames[n : n + last - first + 1] != self._theirs[first : last + 1]:
            return None
        return m.moved(start)


def _begins(sizes: Sequence[int]) -> list[int]:
    begins = [0]
    for size in sizes:
        begins.append(begins[-1] + size)
    return begins


def _at(begins: Sequence[int], position: int) -> int:
    return bisect.bisect_right(begins, position) - 1
