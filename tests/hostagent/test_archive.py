"""An archive that is read through while it is still written: what is found is of what it ended as, or nothing."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
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


class Growing:
    """The archive's file: as long as it will be, with nothing in it yet; and who reads it through beside."""

    def __init__(self, path: Path, raw: bytes, index: tuple[Chunk, ...]) -> None:
        self.raw = raw
        self.index = index
        self.growth = Growth()
        #: The reader waits for more of it, or has.
        self.waits = threading.Event()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self._fd, len(raw))
        self._pool = ThreadPoolExecutor(1)

    def read_through(self, *, indexed: bool = True) -> Future[tuple[Frame, ...] | None]:
        return self._pool.submit(verify, self._fd, digest_of(self.raw), self.index if indexed else None, self._wait)

    def _wait(self, end: int) -> None:
        self.waits.set()
        self.growth.wait(end)

    def put(self, start: int, end: int) -> None:
        os.pwrite(self._fd, self.raw[start:end], start)

    def close(self) -> None:
        self.growth.give_up()
        self._pool.shutdown()
        os.close(self._fd)


@pytest.fixture
def file(packed: tuple[bytes, tuple[Chunk, ...]], tmp_path: Path) -> Iterator[Growing]:
    made = Growing(tmp_path / "x", *packed)
    yield made
    made.close()


@pytest.mark.parametrize("indexed", [True, False])
def test_it_is_read_as_far_as_it_is_there(file: Growing, indexed: bool) -> None:
    found = file.read_through(indexed=indexed)
    # What comes last is there first, and what is said to be there comes in odd steps.
    size, half = len(file.raw), len(file.raw) // 2
    file.put(half, size)
    at = 0
    for step in (1, 70_001, 1_500_000, half):
        file.put(at, min(at + step, half))
        at = min(at + step, half)
        file.growth.reaches(at if at < half else size)
        file.growth.reaches(0)  # nothing goes back
    frames = found.result(10)
    assert (frames is not None) == indexed
    if frames is not None:
        assert [(f.start, f.length) for f in frames] == [(c.start, c.length) for c in file.index]
        assert all(f.digest == hashlib.sha256(file.raw[f.start :][: f.length]).digest() for f in frames)


def test_what_is_wrong_at_its_end_is_found(file: Growing) -> None:
    found = file.read_through()
    file.put(0, len(file.raw) - 1)
    file.growth.reaches(len(file.raw))
    with pytest.raises(WrongDigest) as caught:
        found.result(10)
    assert caught.value.found == digest_of(file.raw[:-1] + b"\0")


def test_nobody_waits_for_what_will_not_come(file: Growing) -> None:
    found = file.read_through()
    assert file.waits.wait(10) and not found.done()
    file.growth.give_up()
    with pytest.raises(GivenUp):
        found.result(10)
