"""From an archive to a release directory that is complete or absent. Touches only the disk.

Everything is made in a fresh directory beside the final one, which gets its name last. Members are created below
directories that this unpacking made itself, never through a symlink; symlinks stay inside, judged by their text when
they are made and by where they really lead at the end. Sizes and counts are bounded by the manifest and by us.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from fleet.files import sync_directory
from hostagent.tar import BadArchive, TarMember, TarReader
from hostagent.twin import File

__all__ = ["BadArchive", "Limits", "sweep", "sync", "unpack"]

#: Largest window that we give memory for; zstd's own default limit for decompression.
WINDOW_MAX = 128 * 1024 * 1024
_PREFIX = ".unpacking-"
_DEPTH_MAX = 64
#: Pieces of the archive that the hashing may be behind.
_AHEAD = 8


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. The manifest's word, but never more than these defaults."""

    bytes: int = 16 * 1024**3
    #: Regular files and symlinks.
    files: int = 500_000
    #: All members, directories too.
    members: int = 1_000_000


class _Hashing:
    """The archive's bytes on their way into the decompressor, hashed beside it."""

    def __init__(self, raw: BinaryIO, check: Callable[[], None], beside: Executor) -> None:
        self._raw = raw
        self._check = check
        self._beside = beside
        self._ahead: deque[Future[None]] = deque()
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        self._check()
        data = self._raw.read(size)
        self._ahead.append(self._beside.submit(self._digest.update, data))
        if len(self._ahead) > _AHEAD:
            self._ahead.popleft().result()
        return data

    def hexdigest(self) -> str:
        while self._ahead:
            self._ahead.popleft().result()
        return self._digest.hexdigest()


def unpack(
    archive: Path,
    release: Path,
    *,
    digest: str,
    limits: Limits,
    check: Callable[[], None] = lambda: None,
    like: Path | None = None,
) -> None:
    """Make ``release`` from ``archive``. Raises BadArchive, OSError, or what ``check`` raises; nothing is left then.

    What is the same in ``like``, an earlier release, is linked (see ``hostagent.twin``). ``check`` is called for every
    piece that is read, so that a caller may give up.
    """
    release.parent.mkdir(parents=True, exist_ok=True)
    fresh = release.parent / f"{_PREFIX}{release.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        tree = _Tree(fresh, limits, like)
        with archive.open("rb") as raw, ThreadPoolExecutor(1, "hash") as beside:
            _fill(_Hashing(raw, check, beside), tree, digest)
        fresh.chmod(0o755)
        sync(fresh)
        fresh.rename(release)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_directory(release.parent)


def sweep(releases: Path) -> None:
    """Remove what an unpacking that was killed left behind."""
    for leftover in releases.glob(f"{_PREFIX}*"):
        shutil.rmtree(leftover)


def _fill(hashing: _Hashing, tree: _Tree, digest: str) -> None:
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX).stream_reader(
        hashing,  # type: ignore[arg-type]  # all that it needs is read()
        read_size=256 * 1024,
        read_across_frames=True,
    )
    try:
        members = TarReader(reader)
        for member in members:
            tree.add(member, members.copy)
    except zstandard.ZstdError as e:
        raise BadArchive(f"not a zstd archive, or a broken one: {e}") from e
    while hashing.read(256 * 1024):  # whatever lies behind the last frame counts for the digest
        pass
    found = f"sha256:{hashing.hexdigest()}"
    if found != digest:
        raise BadArchive(f"the archive's digest is {found}, and {digest} was promised")
    tree.finish()


class _Tree:
    """What was made so far: a member may only go below a directory that was made here, and only once."""

    def __init__(self, root: Path, limits: Limits, like: Path | None) -> None:
        self._root = root
        self._like = _Like(like) if like is not None else None
        self._limits = limits
        self._bytes = self._files = self._members = 0
        #: Every path made; True for a directory.
        self._made: dict[tuple[str, ...], bool] = {(): True}
        #: Directories made only because something lies in them; naming them afterwards is no duplicate.
        self._implied: set[tuple[str, ...]] = {()}
        self._links: list[tuple[str, ...]] = []

    def add(self, member: TarMember, copy: Callable[[Callable[[bytes], object]], None]) -> None:
        parts = _parts(member.name)
        self._count(member)
        self._parents(parts, member.name)
        if member.kind == "directory" and parts in self._implied:
            self._implied.remove(parts)
            return
        if parts in self._made:
            raise BadArchive(f"{member.name}: is in the archive twice")
        self._made[parts] = member.kind == "directory"
        path = self._root.joinpath(*parts)
        match member.kind:
            case "directory":
                _directory(path)
            case "file":
                self._write(path, parts, member, copy)
            case "symlink":
                _stays_inside(parts, member)
                self._links.append(parts)
                path.symlink_to(member.target)

    def _write(
        self, path: Path, parts: tuple[str, ...], member: TarMember, copy: Callable[[Callable[[bytes], object]], None]
    ) -> None:
        old = self._like.at(parts) if self._like else None
        file, whole = File(path, 0o755 if member.executable else 0o644, member.size, old), False
        try:
            copy(file.write)
            whole = True
        finally:
            file.close(whole=whole)

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
                self._made[parent] = True
                self._implied.add(parent)
                _directory(self._root.joinpath(*parent))
            elif not directory:
                raise BadArchive(f"{name}: lies below {'/'.join(parent)}, which is not a directory")

    def finish(self) -> None:
        """Where do the symlinks really lead, now that all of them are there?"""
        root = os.path.realpath(self._root)
        for parts in self._links:
            leads = os.path.realpath(self._root.joinpath(*parts))
            if leads != root and not leads.startswith(root + "/"):
                raise BadArchive(f"{'/'.join(parts)}: a symlink that leads outside")


class _Like:
    """An earlier release, of which only what is reached through no symlink is looked at."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._plain: dict[tuple[str, ...], bool] = {}

    def at(self, parts: tuple[str, ...]) -> Path | None:
        parent = parts[:-1]
        if parent not in self._plain:
            directory = self._root.joinpath(*parent)
            self._plain[parent] = os.path.realpath(directory) == str(directory)
        return self._root.joinpath(*parts) if self._plain[parent] else None


def _directory(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # whatever the agent's umask is


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith("/"):
        raise BadArchive(f"{name}: an absolute path")
    if "\0" in name:
        raise BadArchive(f"{name!r}: a zero byte in a name")
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
