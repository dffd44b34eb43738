"""Reads a tar stream, member by member, and trusts none of it. Pure but for reading the stream that it is given.

Its own reader, because what it must refuse is easier to see here than in a general one: ustar headers and the PAX
records ``path``, ``linkpath`` and ``size``; regular files, directories and symlinks. Anything else is an error that
names the member. Nothing is read into memory in a length that the archive chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

BLOCK = 512
#: A PAX header holds a path or two; more is an attack.
PAX_MAX = 64 * 1024

Kind = Literal["file", "directory", "symlink"]
_KINDS: dict[bytes, Kind] = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "symlink"}
_REFUSED = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"g": "a global PAX header",
}


class BadArchive(Exception):
    """The archive is broken or hostile. The sentence names the member and what is wrong with it."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def seek(self, to: int, /) -> None:
        """Raises BadArchive where it is not that long. Only asked where something is known beforehand."""


@dataclass(frozen=True)
class TarMember:
    #: As the archive has it, but for a directory's trailing slash.
    name: str
    kind: Kind
    size: int
    executable: bool
    #: A symlink's target.
    target: str = ""
    #: Where in the stream its first header begins, and its content.
    start: int = 0
    data: int = 0
    #: Of a file's content, where somebody looked: SHA-256.
    digest: bytes = b""

    @property
    def mode(self) -> int:
        """One of two."""
        return 0o755 if self.executable else 0o644

    @property
    def end(self) -> int:
        return self.data + self.size + -self.size % BLOCK

    def moved(self, start: int) -> TarMember:
        """The same, elsewhere in a stream."""
        if start == self.start:
            return self
        data = start + self.data - self.start
        return TarMember(self.name, self.kind, self.size, self.executable, self.target, start, data, self.digest)


class TarReader:
    """Iterate over the members; each file's content must be taken with ``copy`` (or is skipped).

    ``known``: the member that begins at a place of the stream, where that need not be read to be known; what of it is
    not copied is passed over.
    """

    def __init__(self, stream: Readable, known: Callable[[int], TarMember | None] = lambda _: None) -> None:
        self._stream = stream
        self._known = known
        self._at = 0
        self._left = 0  # of the current member's content
        self._padding = 0
        self._end_known: int | None = None  # of the current member

    def __iter__(self) -> Iterator[TarMember]:
        pax: dict[str, str] = {}
        start = 0
        while True:
            self._skip()
            if not pax:
                start = self._at
                if (same := self._known(start)) is not None:
                    self._current(same)
                    self._end_known = same.end
                    yield same
                    continue
            header = self._exactly(BLOCK, "a header")
            if header == bytes(BLOCK):
                self._end()
                return
            name, kind, size, mode, target = _parse(header)
            if kind == b"x":
                if pax:
                    raise BadArchive(f"{name}: two PAX headers in a row")
                pax = self._pax(name, size)
                continue
            member = self._member(pax.get("path", name), kind, _number(pax, size), mode, pax.get("linkpath", target))
            yield replace(member, start=start, data=self._at)
            pax = {}

    def copy(self, write: Callable[[bytes], object]) -> None:
        """Hand the current member's content to ``write``, in pieces."""
        while self._left:
            piece = self._stream.read(min(self._left, 256 * 1024))
            if not piece:
                raise BadArchive("the archive ends in the middle of a file")
            self._left -= len(piece)
            self._at += len(piece)
            write(piece)

    def _current(self, member: TarMember) -> None:
        self._seek(member.data)
        self._left, self._padding = member.size, -member.size % BLOCK

    def _seek(self, to: int) -> None:
        self._stream.seek(to)
        self._at = to

    def _member(self, name: str, kind: bytes, size: int, mode: int, target: str) -> TarMember:
        if kind not in _KINDS:
            raise BadArchive(f"{name}: is {_REFUSED.get(kind, f'of the unknown type {kind!r}')}, which is not allowed")
        known = _KINDS[kind]
        if kind == b"\0" and name.endswith("/"):
            known = "directory"
        if known != "file" and size:
            raise BadArchive(f"{name}: a {known} with content")
        self._left, self._padding = size, -size % BLOCK
        return TarMember(
            name.removesuffix("/") if known == "directory" else name, known, size, bool(mode & 0o111), target
        )

    def _pax(self, name: str, size: int) -> dict[str, str]:
        if size > PAX_MAX:
            raise BadArchive(f"{name}: a PAX header of {size} bytes")
        raw = self._exactly(size, name)
        self._exactly(-size % BLOCK, name)
        records: dict[str, str] = {}
        while raw:
            digits, _, _ = raw.partition(b" ")
            if not digits.isdigit() or len(digits) > 6 or not len(digits) + 3 < int(digits) <= len(raw):
                raise BadArchive(f"{name}: a malformed PAX record")
            record, raw = raw[: int(digits)], raw[int(digits) :]
            key, eq, value = record[len(digits) + 1 : -1].partition(b"=")
            if not eq or record[-1:] != b"\n" or key in (b"hdrcharset",) or key.startswith(b"GNU.sparse"):
                raise BadArchive(f"{name}: a PAX record that is malformed or not allowed: {key[:40]!r}")
            records[_text(key, name)] = _text(value, name)
        return records

    def _skip(self) -> None:
        if self._end_known is not None:
            self._seek(self._end_known)
            self._end_known = None
        else:
            self.copy(lambda _: None)
            self._exactly(self._padding, "padding")
        self._left = self._padding = 0

    def _end(self) -> None:
        """Two zero blocks, then nothing but zeros."""
        self._exactly(BLOCK, "the end")
        while rest := self._stream.read(256 * 1024):
            if rest.strip(b"\0"):
                raise BadArchive("there is something behind the end of the archive")

    def _exactly(self, n: int, what: str) -> bytes:
        got = b""
        while len(got) < n:
            piece = self._stream.read(n - len(got))
            if not piece:
                raise BadArchive(f"the archive ends in the middle of {what}")
            got += piece
        self._at += n
        return got


def _parse(header: bytes) -> tuple[str, bytes, int, int, str]:
    if sum(header) - sum(header[148:156]) + 8 * 32 != _octal(header[148:156]):
        raise BadArchive("not a tar archive, or a broken one: a header's checksum is wrong")
    if header[257:262] != b"ustar":
        raise BadArchive("not a POSIX tar archive")
    name = _text(_terminated(header[0:100]), "a name")
    if header[257:265] == b"ustar\x0000" and (prefix := _terminated(header[345:500])):
        name = f"{_text(prefix, name)}/{name}"
    return (
        name,
        header[156:157],
        _octal(header[124:136]),
        _octal(header[100:108]),
        _text(_terminated(header[157:257]), name),
    )


def _terminated(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    if not digits:
        return 0
    if not all(c in b"01234567" for c in digits):
        raise BadArchive("a header with a number that is not octal")
    return int(digits, 8)


def _number(pax: dict[str, str], size: int) -> int:
    if "size" not in pax:
        return size
    if not pax["size"].isascii() or not pax["size"].isdigit() or len(pax["size"]) > 18:
        raise BadArchive("a PAX size that is not a number")
    return int(pax["size"])


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise BadArchive(f"{where}: a name that is not UTF-8: {raw[:60]!r}") from e
