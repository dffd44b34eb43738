"""An archive that is read through while it is still written: what is found is of what it ended as, or nothing."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet import chunks
from fleet.chunks import Chunk
from hostagent.archive import Frame, GivenUp, Growth, WrongDigest, verify
from pipeline.archive import pack, survey
from tests.hostagent.fleet import digest_of


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, tuple[Chunk, ...]]:
    """An archive of some megabytes, and its index."""
    directory = tmp_path_factory.mktemp("packed")
    (directory / "tree").mkdir()
    (directory / "tree/blob").write_bytes(random.Random(8).randbytes(5_000_000))
    made = pack(survey(directory / "tree"), directory / "a")
    raw = (directory / "a").read_bytes()
    return raw, chunks.decode(made.index, len(raw))


Beside = Callable[..., "Future[tuple[Frame, ...] | None]"]


@pytest.fixture
def beside() -> Iterator[Beside]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def holes(path: Path, size: int) -> int:
    """The file that it will be, with nothing in it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    return fd


@pytest.mark.parametrize("indexed", [True, False])
def test_it_is_read_as_far_as_it_is_there(
    packed: tuple[bytes, tuple[Chunk, ...]], beside: Beside, tmp_path: Path, indexed: bool
) -> None:
    raw, index = packed
    fd = holes(tmp_path / "x", len(raw))
    growth = Growth()
    found = beside(verify, fd, digest_of(raw), index if indexed else None, growth.wait)
    # What comes last is there first, and what is said to be there comes in odd steps.
    half = len(raw) // 2
    os.pwrite(fd, raw[half:], half)
    at = 0
    for step in (1, 70_001, 1_500_000, half):
        os.pwrite(fd, raw[at : min(at + step, half)], at)
        at = min(at + step, half)
        growth.reaches(at if at < half else len(raw))
        growth.reaches(0)  # nothing goes back
    frames = found.result(10)
    assert (frames is not None) == indexed
    if frames is not None:
        assert [(f.start, f.length) for f in frames] == [(c.start, c.length) for c in index]
        assert all(f.digest == hashlib.sha256(raw[f.start :][: f.length]).digest() for f in frames)
    os.close(fd)


def test_what_is_wrong_at_its_end_is_found(
    packed: tuple[bytes, tuple[Chunk, ...]], beside: Beside, tmp_path: Path
) -> None:
    raw, index = packed
    fd = holes(tmp_path / "x", len(raw))
    growth = Growth()
    found = beside(verify, fd, digest_of(raw), index, growth.wait)
    os.pwrite(fd, raw[:-1], 0)
    growth.reaches(len(raw))
    with pytest.raises(WrongDigest) as caught:
        found.result(10)
    assert caught.value.found == digest_of(raw[:-1] + b"\0")
    os.close(fd)


def test_nobody_waits_for_what_will_not_come(
    packed: tuple[bytes, tuple[Chunk, ...]], beside: Beside, tmp_path: Path
) -> None:
    raw, index = packed
    fd = holes(tmp_path / "x", len(raw))
    growth, waits = Growth(), threading.Event()

    def wait(end: int) -> None:
        waits.set()
        growth.wait(end)

    found = beside(verify, fd, digest_of(raw), index, wait)
    assert waits.wait(10) and not found.done()
    growth.give_up()
    with pytest.raises(GivenUp):
        found.result(10)
    os.close(fd)
