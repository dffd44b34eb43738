"""From an archive to a release directory that is complete or absent. Touches only the disk.

Everything is made in a fresh directory beside the final one, which gets its name last. Members are created below
directories that this unpacking made itself, never through a symlink; symlinks stay inside, judged by their text when
they are made and by where they really lead at the end. Sizes and counts are bounded by the manifest and by us.

Of an archive that was read through already (``hostagent.archive``) only what an earlier release does not have is read
again.

Here, in ``sharing`` and in ``twin`` what lies in a release is named by plain strings: of thousands of files, objects of
``Path`` took a quarter of the time of linking them. Where the caller's world begins (``unpack``, ``discard``,
``sweep``) and for what is rare (directories, symlinks) it is ``Path``, as everywhere.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet import chunks, names
from fleet.chunks import BadIndex, Chunk
from fleet.files import read_or_none, sync_directory
from hostagent import archive as archives
from hostagent.archive import Frame, Verified, WrongDigest
from hostagent.contents import Contents
from hostagent.layout import index_of
from hostagent.sharing import Earlier, Sharing
from hostagent.stream import Framed, Plain
from hostagent.tar import BadArchive, TarMember, TarReader
from hostagent.twin import File

__all__ = ["BadArchive", "Earlier", "Limits", "discard", "sweep", "sync", "unpack"]

#: Hands a file's content to what it is given, in pieces.
Copy = Callable[[Callable[[bytes], object]], None]
_PREFIX = ".unpacking-"
_TRASH = ".trash-"
_DEPTH_MAX = 64


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. The manifest's word, but never more than these defaults."""

    bytes: int = 16 * 1024**3
    #: Regular files and symlinks.
    files: int = 500_000
    #: All members, directories too.
    members: int = 1_000_000


def unpack(
    archive: Path,
    release: Path,
    *,
    digest: str,
    limits: Limits,
    check: Callable[[], None] = lambda: None,
    seen: Verified | None = None,
    earlier: Earlier | None = None,
) -> Contents | None:
    """Make ``release`` from ``archive``. Raises BadArchive, OSError, or what ``check`` raises; nothing is left then.

    ``seen``: what was found when the archive was read last; without it, it is read here. ``earlier``: the release may
    share files with that one. What it then holds, for the next; None where that is not known. ``check`` is called for
    every member and piece, so that a caller may give up.
    """
    release.parent.mkdir(parents=True, exist_ok=True)
    fresh = release.parent / f"{_PREFIX}{release.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        with archive.open("rb") as raw:
            frames = _verified(raw, archive, digest, check, seen)
            contents = _fill(raw, frames, fresh, limits, check, earlier)
        fresh.chmod(0o755)
        sync(fresh)
        fresh.rename(release)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_directory(release.parent)
    return contents


def discard(release: Path) -> None:
    """Out of sight first: what is half removed is not a release."""
    trash = release.with_name(f"{_TRASH}{release.name}")
    shutil.rmtree(trash, ignore_errors=True)
    release.rename(trash)
    shutil.rmtree(trash)


def sweep(releases: Path) -> None:
    """Remove what an unpacking or a ``discard`` that was killed left behind."""
    for prefix in (_PREFIX, _TRASH):
        for leftover in releases.glob(f"{prefix}*"):
            shutil.rmtree(leftover)


def _verified(
    raw: BinaryIO, archive: Path, digest: str, check: Callable[[], None], seen: Verified | None
) -> tuple[Frame, ...] | None:
    if seen is not None and seen.of(raw.fileno(), digest):
        return seen.frames
    try:
        return archives.verify(raw.fileno(), digest, _index(archive), lambda _: check())
    except WrongDigest as e:
        raise BadArchive(f"the archive's digest is {e.found}, and {digest} was promised") from e


def _index(archive: Path) -> tuple[Chunk, ...] | None:
    try:
        return chunks.decode(read_or_none(index_of(archive)) or b"", archive.stat().st_size)
    except BadIndex:
        return None


def _fill(
    raw: BinaryIO,
    frames: tuple[Frame, ...] | None,
    root: Path,
    limits: Limits,
    check: Callable[[], None],
    earlier: Earlier | None,
) -> Contents | None:
    sharing = Sharing(earlier or Earlier(), frames if earlier else None)
    tree = _Tree(root, limits, sharing, check)
    members = TarReader(Plain(raw) if frames is None else Framed(raw.fileno(), frames), sharing.known)
    for member in members:
        check()
        tree.add(member, members.copy)
    tree.finish()
    return sharing.contents(root)


class _Tree:
    """What was made so far: a member may only go below a directory that was made here, and only once."""

    def __init__(self, root: Path, limits: Limits, sharing: Sharing, check: Callable[[], None]) -> None:
        self._root = str(root)
        self._limits = limits
        self._sharing = sharing
        self._check = check
        self._bytes = self._files = self._members = 0
        #: Every path made; True for a directory.
        self._made: dict[tuple[str, ...], bool] = {(): True}
        #: Directories made only because something lies in them; naming them afterwards is no duplicate.
        self._implied: set[tuple[str, ...]] = {()}
        self._links: list[tuple[str, ...]] = []
        #: As some file systems see it, and its name.
        self._folded: dict[str, str] = {}

    def add(self, member: TarMember, copy: Copy) -> None:
        parts = _parts(member.name)
        self._count(member)
        self._parents(parts, member.name)
        if member.kind == "directory" and parts in self._implied:
            self._implied.remove(parts)
            self._sharing.hold(member)
            return
        if parts in self._made:
            raise BadArchive(f"{member.name}: is in the archive twice")
        self._alone(parts, member.name)
        self._made[parts] = member.kind == "directory"
        path = self._path(parts)
        match member.kind:
            case "directory":
                _directory(Path(path))
                self._sharing.hold(member)
            case "file":
                self._file(path, parts, member, copy)
            case "symlink":
                _stays_inside(parts, member)
                self._links.append(parts)
                Path(path).symlink_to(member.target)
                self._sharing.hold(member)

    def _path(self, parts: tuple[str, ...]) -> str:
        return "/".join((self._root, *parts))

    def _file(self, path: str, parts: tuple[str, ...], member: TarMember, copy: Copy) -> None:
        old = self._sharing.old(parts)
        if self._sharing.link(path, old, member):
            self._sharing.hold(member)
            return
        hashed, digest = self._sharing.hashed()
        file, whole = File(path, member.mode, member.size, old), False

        def write(data: bytes) -> None:
            self._check()
            file.write(data)
            hashed(data)

        try:
            copy(write)
            whole = True
        finally:
            file.close(whole=whole)
        self._sharing.hold(member, digest)

    def _count(self, member: TarMember) -> None:
        self._members += 1
        self._bytes += member.size
        self._files += member.kind != "directory"
        if self._bytes > self._limits.bytes:
            raise BadArchive(f"{member.name}: the archive holds more than the {self._limits.bytes} bytes allowed")
        if self._files > self._limits.files:
            raise BadArchive(f"{member.name}: the archive holds more than the {self._limits.files} files allowed")
        if self._members > self._limits.members:
            raise BadArchive(f"{member.name}: the archive holds more than {self._limits.members} members")

    def _parents(self, parts: tuple[str, ...], name: str) -> None:
        for depth in range(1, len(parts)):
            parent = parts[:depth]
            if (directory := self._made.get(parent)) is None:
                self._alone(parent, name)
                self._made[parent] = True
                self._implied.add(parent)
                _directory(Path(self._path(parent)))
            elif not directory:
                raise BadArchive(f"{name}: lies below {'/'.join(parent)}, which is not a directory")

    def _alone(self, parts: tuple[str, ...], name: str) -> None:
        """A release is the same on every host's file system, and two names are never one there."""
        path = "/".join(parts)
        if (other := self._folded.setdefault(names.folded(path), path)) != path:
            raise BadArchive(f"{name}: the same name as {other}, but for case or accents")

    def finish(self) -> None:
        """Where do the symlinks really lead, now that all of them are there?"""
        root = os.path.realpath(self._root)
        for parts in self._links:
            leads = os.path.realpath(self._path(parts))
            if leads != root and not leads.startswith(root + "/"):
                raise BadArchive(f"{'/'.join(parts)}: a symlink that leads outside")


def _directory(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # whatever the agent's umask is


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith("/"):
        raise BadArchive(f"{name}: an absolute path")
    if "\0" in name:
        raise BadArchive(f"{name!r}: a zero byte in a name")
    if names.controls(name):
        raise BadArchive(f"{name!r}: a newline or another control character in a name")
    parts = tuple(name.split("/"))
    if ".." in parts:
        raise BadArchive(f"{name}: a path with '..'")
    if "" in parts or "." in parts:
        raise BadArchive(f"{name!r}: a path with an empty part or '.'")
    if len(parts) > _DEPTH_MAX or any(len(p.encode()) > 255 for p in parts):
        raise BadArchive(f"{name[:100]}: a path that is too deep or too long")
    return parts


def _stays_inside(parts: tuple[str, ...], member: TarMember) -> None:
    if not member.target or "\0" in member.target:
        raise BadArchive(f"{member.name}: a symlink to nothing")
    if names.controls(member.target):
        raise BadArchive(f"{member.name}: a symlink to {member.target!r}, which has a control character")
    if member.target.startswith("/"):
        raise BadArchive(f"{member.name}: a symlink to the absolute path {member.target}")
    depth = len(parts) - 1
    for part in member.target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            raise BadArchive(f"{member.name}: a symlink that leads outside, to {member.target}")


def sync(directory: Path) -> None:
    """Everything below ``directory`` is on the disk afterwards: one call for its file system, not one a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(directory))
    finally:
        os.close(fd)
