"""Looking at a local fleet from outside, as its user's machine would."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pinrail.local import processes

PINRAIL = (sys.executable, "-m", "pinrail")


def left_of(directory: Path) -> list[str]:
    """Every process that has to do with a fleet in that directory: by its mark, its command line or its open files."""
    mark = f"{processes.MARK}={hashlib.sha256(str(directory).encode()).hexdigest()[:8]}-".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or processes.look(int(entry.name)) is None:
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            marked = mark in (entry / "environ").read_bytes()
            files = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue
        inside = any(f.startswith(f"{directory}/") for f in files)
        # The tests' own commands name the directory too; what counts is what works in it.
        if marked or inside:
            found.append(f"{entry.name}: {command.replace(bytes(1), b' ').decode()}")
    return found


def run(*words: object, seconds: float = 90, **environment: str) -> subprocess.CompletedProcess[str]:
    """``pinrail WORDS``, to its end."""
    return subprocess.run(
        (*PINRAIL, *map(str, words)),
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a fleet may be; whatever the test leaves there is ended."""
    where = tmp_path / "fleet"
    yield where
    run("down", "--dir", where)
    assert left_of(where) == []


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``pinrail WORDS`` in the background; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        p = subprocess.Popen(
            (*PINRAIL, *map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        started.append(p)
        return p

    yield begin
    for p in started:
        p.kill()
        p.communicate()
