"""From a directory to the bytes of a build, and back as far as checking goes. Touches only the disk.

The same tree gives the same bytes: whatever its owner, times, umask, file system or the order of its entries. What
counts is the names, the content of files, whether the owner may execute them, and where symlinks point. Hard links
become files of their own. ``.git`` at the top is left out, and nothing else is. (Another release of libzstd may
compress differently: the same bytes are promised for one installation of Pinrail, not for ever.)

What a host would refuse to unpack is refused here, before anything is uploaded; the sentence names the file.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import zstandard

from fleet import chunks, names
from pipeline.frames import FrameWriter

#: What hosts unpack at most.
BYTES_MAX = 16 * 1024**3
FILES_MAX = 500_000
MEMBERS_MAX = 1_000_000
DEPTH_MAX = 64

EXCLUDED = frozenset({".git"})

_LEVEL = 9
_CHUNK = 1024 * 1024

Progress = Callable[[int], None]


class BadTree(Exception):
    """The operator's: the directory holds something that cannot be part of a build. Says which file and why."""


class BadArchive(Exception):
    """Not what ``pack`` makes, or damaged."""


@dataclass(frozen=True)
class Packed:
    #: ``sha256:<hex>`` of the archive.
    digest: str
    #: Bytes of the archive.
    size: int
    #: Bytes of the files in it.
    unpacked: int
    #: Files and symlinks in it.
    files: int
    #: Of which chunks it is made, see ``fleet.chunks``; empty where that was not looked at.
    index: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Entry:
    #: Relative, with slashes.
    name: str
    path: Path
    stat: os.stat_result
    #: Where a symlink points; None for anything else.
    target: str | None = None


# --- looking -----------------------------------------------------------------------------------------------------


def survey(tree: Path) -> list[Entry]:
    """Everything that belongs to the build, in the archive's order. Raises BadTree; nothing is read but names."""
    try:
        root = tree.resolve(strict=True)
        entries = sorted(_walk(root, ()), key=lambda e: e.name.encode().split(b"/"))
    except OSError as e:
        raise BadTree(f"cannot read {e.filename or tree}: {e.strerror}") from e
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.target is not None:
            _check_symlink(root, entry, entry.target)
        if (other := seen.setdefault(names.folded(entry.name), entry.name)) != entry.name:
            raise BadTree(f"{entry.name}: has the same name as {other}, but for case or accents; rename one")
    files = sum(not stat.S_ISDIR(e.stat.st_mode) for e in entries)
    if not files:
        raise BadTree(f"{tree} holds no files: there is nothing to publish")
    if files > FILES_MAX or len(entries) > MEMBERS_MAX:
        raise BadTree(f"{tree} holds {files} files, and hosts unpack at most {FILES_MAX}")
    if content(entries) > BYTES_MAX:
        raise BadTree(f"{tree} holds {content(entries)} bytes, and hosts unpack at most {BYTES_MAX}")
    return entries


def content(entries: list[Entry]) -> int:
    """Bytes of all files."""
    return sum(e.stat.st_size for e in entries if stat.S_ISREG(e.stat.st_mode))


def _walk(root: Path, below: tuple[str, ...]) -> Iterator[Entry]:
    with os.scandir(root.joinpath(*below)) as found:
        for item in found:
            if not below and item.name in EXCLUDED:
                continue
            parts = (*below, item.name)
            name = "/".join(parts)
            _check_name(name, len(parts))
            status = item.stat(follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something unknown")
            if kind == "symlink":
                target = str(Path(item.path).readlink())
                yield Entry(name, Path(item.path), status, target)
            elif kind in ("file", "directory"):
                yield Entry(name, Path(item.path), status)
            else:
                raise BadTree(f"{name}: is {kind}; a build holds files, directories and symlinks only")
            if kind == "directory":
                yield from _walk(root, parts)


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _check_name(name: str, depth: int) -> None:
    if why := _unspeakable(name):
        raise BadTree(f"{name!a}: its name {why}; rename it")
    if depth > DEPTH_MAX:
        raise BadTree(f"{name}: lies deeper than {DEPTH_MAX} directories")


def _unspeakable(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 come as lone surrogates
        return "is not UTF-8"
    if names.controls(text):
        return "contains a newline or another control character"
    return None


def _check_symlink(root: Path, entry: Entry, target: str) -> None:
    shown = ascii(target)
    if why := _unspeakable(target):
        raise BadTree(f"{entry.name}: a symlink to {shown}, which {why}")
    if target.startswith("/"):
        raise BadTree(f"{entry.name}: a symlink to the absolute path {shown}; make it relative")
    leads = posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), target))
    really = Path(os.path.realpath(entry.path))
    if leads == ".." or leads.startswith("../") or not really.is_relative_to(root):
        raise BadTree(f"{entry.name}: a symlink that leads outside, to {shown}")


# --- writing -----------------------------------------------------------------------------------------------------


def pack(entries: list[Entry], to: Path, progress: Progress | None = None) -> Packed:
    """Write the archive of what ``survey`` found. ``progress`` is given the bytes of content so far.

    Raises BadTree for what cannot be read or changes meanwhile, and OSError for the disk of ``to``.
    """
    with to.open("wb") as raw:
        out = _Hashing(raw)
        frames = FrameWriter(out.write, level=_LEVEL)
        _write_members(entries, frames.write, progress or (lambda _: None))
        index = chunks.encode(frames.close())
    return Packed(
        digest=f"sha256:{out.digest.hexdigest()}",
        size=out.size,
        unpacked=content(entries),
        files=sum(not stat.S_ISDIR(e.stat.st_mode) for e in entries),
        index=index,
    )


class _Hashing:
    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._raw.write(data)


def _write_members(entries: list[Entry], write: Callable[[bytes], object], progress: Progress) -> None:
    done = 0
    for entry in entries:
        write(_member(entry).tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        if not stat.S_ISREG(entry.stat.st_mode):
            continue
        for piece in _read(entry):
            write(piece)
            done += len(piece)
            progress(done)
        write(bytes(-entry.stat.st_size % tarfile.BLOCKSIZE))
    write(bytes(2 * tarfile.BLOCKSIZE))


def _member(entry: Entry) -> tarfile.TarInfo:
    """Owner 0, no names, time 0, one of two modes: nothing of the machine it was packed on."""
    info = tarfile.TarInfo(entry.name)
    info.mode = 0o644
    if entry.target is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
    elif stat.S_ISDIR(entry.stat.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size = entry.stat.st_size
        if entry.stat.st_mode & stat.S_IXUSR:
            info.mode = 0o755
    return info


def _read(entry: Entry) -> Iterator[bytes]:
    """Exactly as many bytes as the survey saw."""
    try:
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            left = entry.stat.st_size
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadTree(f"{entry.name}: changed while it was read; publish a directory that is at rest")
            while left and (piece := f.read(min(left, _CHUNK))):
                left -= len(piece)
                yield piece
            if left or f.read(1):
                raise BadTree(f"{entry.name}: changed while it was read; publish a directory that is at rest")
    except OSError as e:
        raise BadTree(f"{entry.name}: cannot be read: {e.strerror}") from e


# --- checking ----------------------------------------------------------------------------------------------------


def digest_of(archive: Path) -> str:
    """``sha256:<hex>`` of a file. Raises OSError."""
    with archive.open("rb") as f:
        return f"sha256:{hashlib.file_digest(f, 'sha256').hexdigest()}"


def inspect(archive: Path) -> Packed:
    """What is really in it, read to the end. Raises BadArchive."""
    unpacked = files = 0
    try:
        with (
            archive.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw, read_size=_CHUNK, read_across_frames=True) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                files += not member.isdir()
                unpacked += member.size
            while stream.read(_CHUNK):  # to the frame's own checksum
                pass
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as e:
        raise BadArchive(f"not a readable archive: {e}") from e
    return Packed(digest=digest_of(archive), size=archive.stat().st_size, unpacked=unpacked, files=files)
