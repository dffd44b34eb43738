"""What a killed master leaves: workers that serve on and hold the port, its cache manager; no master will stop them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_TITLES = (b"nginx: worker process", b"nginx: cache manager process", b"nginx: cache loader process")
LEAVING = b"is shutting down"


def title(pid: int) -> bytes:
    """A process's command line; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def find(directory: Path, master: int | None) -> frozenset[int]:
    """Those that have this edge's log of requests open and are not ``master``'s."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and title(int(entry.name)).startswith(_TITLES) and _is_ours(entry, directory, master):
            found.add(int(entry.name))
    return frozenset(found)


def _is_ours(process: Path, directory: Path, master: int | None) -> bool:
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        files = [str(f.readlink()) for f in (process / "fd").iterdir()]
    except OSError:
        return False  # it is gone, or somebody else's
    return parent != master and any(f.startswith(f"{directory}/requests.log") for f in files)


def dismiss(directory: Path, seconds: float = 5.0) -> None:
    """Make them give up the port; they finish what they have. Waits until they have given it up."""
    until = time.monotonic() + seconds
    left = find(directory, None)
    for pid in left:
        try:
            os.kill(pid, signal.SIGQUIT)
        except ProcessLookupError:
            continue
    while any(t and LEAVING not in t for t in map(title, left)) and time.monotonic() < until:
        time.sleep(0.02)
