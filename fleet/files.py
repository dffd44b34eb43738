"""The disk: writes that are either complete or absent, after a crash too."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

#: As ``tempfile`` names what ``write_atomic`` asks it for.
_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}")


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write ``data`` to a sibling, fsync, rename over ``path``, fsync the directory.

    Readers see the old content or the new one, never a part. Raises OSError; the old file is then untouched.
    """
    raw = data.encode() if isinstance(data, str) else data
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as f:
            os.fchmod(f.fileno(), mode)
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_directory(path.parent)


def sweep_unfinished(directories: Iterable[Path]) -> None:
    """Remove what a ``write_atomic`` that was killed left in them. For who alone writes there, before it begins to."""
    for directory in directories:
        for file in directory.glob(".*"):
            if _UNFINISHED.fullmatch(file.name) and file.is_file():
                file.unlink(missing_ok=True)


def read_or_none(path: Path) -> bytes | None:
    """The file's bytes, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
