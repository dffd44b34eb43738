"""Whether a release's files are still those that were unpacked or linked there, without reading them.

A file's seal is another one after any write, after a change of its times, and after a link to it was made or removed:
who does one of the latter to a release on purpose makes its seals anew. Reads only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from hostagent.contents import Contents, Seal


def of(status: os.stat_result) -> Seal:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def intact(status: os.stat_result, seal: Seal | None, size: int, mode: int) -> bool:
    """It is a file that nobody but us could write to, and nobody did."""
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == mode
    return ours and status.st_size == size and of(status) == seal


def made(root: Path, names: Iterable[str]) -> dict[str, Seal]:
    """Of files that are known to be as they should. Raises OSError."""
    return {name: of(os.lstat(f"{root}/{name}")) for name in names}


def unbroken(root: Path, contents: Contents) -> list[str]:
    """Names of the files whose seals are whole."""
    found = []
    for m in contents.members:
        if m.kind != "file":
            continue
        try:
            status = os.lstat(f"{root}/{m.name}")
        except OSError:
            continue
        if intact(status, contents.seals.get(m.name), m.size, m.mode):
            found.append(m.name)
    return found


def anew(root: Path, contents: Contents, names: Iterable[str]) -> Contents:
    """Links were removed by us: as it was, with the seals that those files have now."""
    seals: Mapping[str, Seal] = made(root, names)
    return Contents(contents.frames, contents.members, seals)
