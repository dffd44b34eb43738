"""How a download goes about it: what is fetched beside what, how fast it may be, and what is there when.

That it is right is shown against a real store (``test_s3``, ``hostagent/test_kept``).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest import approx

from fleet.download import COPIERS, WORKERS, Download, Limits, Pace, Sink
from fleet.loop import Trouble
from fleet.ranges import PiecewiseFile

PIECE = 10_000
DATA = random.Random(6).randbytes(8 * PIECE - 5)


class Refused(Trouble):
    pass


class Source:
    """``reads`` is called with each range that is asked for."""

    name = "it"
    final = Refused

    def __init__(self, reads: Callable[[int, int], None] = lambda _start, _end: None) -> None:
        self._reads = reads
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.ranges: list[tuple[int, int]] = []

    def read(self, start: int, end: int) -> Iterator[bytes]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.ranges.append((start, end))
        try:
            self._reads(start, end)
            yield DATA[start:end]
        finally:
            with self._lock:
                self._now -= 1


@dataclass
class Here:
    """All but each piece's ``gaps`` (from its start on) is here; what is ``lost`` only seems to be."""

    gaps: Sequence[tuple[int, int]]
    lost: Sequence[tuple[int, int]] = ()

    def part(self, start: int, end: int) -> Part:
        return Part(self, start, end)


@dataclass
class Part:
    here: Here
    start: int
    end: int

    @property
    def gaps(self) -> list[tuple[int, int]]:
        return [(self.start + low, self.start + high) for low, high in self.here.gaps]

    def fill(self, sink: Sink) -> list[tuple[int, int]]:
        lost = [(self.start + low, self.start + high) for low, high in self.here.lost]
        away, at = sorted((*self.gaps, *lost)), self.start
        for low, high in (*away, (self.end, self.end)):
            sink.write(at, DATA[at:low])
            at = high
        return lost


def assert_never_alone(together: threading.Barrier) -> None:
    assert together.wait(10) >= 0


def download(
    path: Path,
    source: Source,
    here: Here | None = None,
    progress: Callable[[int], None] | None = None,
    beginning: Callable[[int], None] | None = None,
) -> int:
    with PiecewiseFile(path, size=len(DATA), identity="1", piece=PIECE) as file:
        limits = Limits(time.monotonic() + 30, 10)
        got = Download(source, file, here, progress, beginning, limits).run(len(DATA))
        file.finish()
    return got


def test_gaps_of_one_piece_and_of_all_are_fetched_side_by_side(tmp_path: Path) -> None:
    together = threading.Barrier(WORKERS)
    source = Source(lambda _start, _end: assert_never_alone(together))
    gaps = [(n * 1000, n * 1000 + 100) for n in range(4)]
    assert download(tmp_path / "x", source, Here(gaps)) == 8 * 400
    assert (tmp_path / "x").read_bytes() == DATA
    assert source.most == WORKERS, "and no more than that"
    assert len(source.ranges) == 8 * 4, "each once"


def test_nothing_waits_for_the_copying_and_that_for_nothing(tmp_path: Path) -> None:
    """Gaps are asked for before what is here is written, and what is here is there before a gap has come."""
    copied = threading.Event()

    def progress(got: int) -> None:
        if got == len(DATA) - 8 * 100:
            copied.set()

    def reads(_start: int, _end: int) -> None:
        assert copied.wait(10)

    assert download(tmp_path / "x", Source(reads), Here([(50, 150)]), progress) == 800
    assert (tmp_path / "x").read_bytes() == DATA


def test_what_could_not_be_had_after_all_is_fetched(tmp_path: Path) -> None:
    source = Source()
    assert download(tmp_path / "x", source, Here([(50, 150)], lost=[(700, 900), (2000, 2001)])) == 8 * (100 + 201)
    assert (tmp_path / "x").read_bytes() == DATA
    assert source.most <= WORKERS + COPIERS


def test_the_beginning_is_only_what_nothing_is_missing_of(tmp_path: Path) -> None:
    told: list[int] = []
    before: list[int] = []
    all_others = threading.Event()

    def progress(got: int) -> None:
        if got == len(DATA) - 100:
            all_others.set()

    def reads(start: int, _end: int) -> None:
        if start == 2 * PIECE + 50:
            assert all_others.wait(10)
            before.extend(told)

    download(tmp_path / "x", Source(reads), Here([(50, 150)]), progress, told.append)
    assert max(before) <= 2 * PIECE, "though all that comes after that gap is there"
    assert told == sorted(told) and told[0] == 0 and told[-1] == len(DATA)


def test_a_piece_whose_gap_did_not_come_is_not_there_for_the_next(tmp_path: Path) -> None:
    def reads(start: int, _end: int) -> None:
        if start == 3 * PIECE + 50:
            raise Refused("no")

    with pytest.raises(Refused):
        download(tmp_path / "x", Source(reads), Here([(50, 150), (5000, 5100)]))
    told: list[int] = []
    again = Source()
    download(tmp_path / "x", again, Here([(50, 150), (5000, 5100)]), beginning=told.append)
    assert {(3 * PIECE + 50, 3 * PIECE + 150), (3 * PIECE + 5000, 3 * PIECE + 5100)} <= set(again.ranges)
    assert (tmp_path / "x").read_bytes() == DATA
    assert told[-1] == len(DATA)


def test_a_pace_is_kept_by_all_who_share_it_and_nothing_is_saved_up() -> None:
    now = [100.0]
    pace = Pace(1000, lambda: now[0])
    assert pace.take(500) == approx(0.5)
    assert pace.take(500) == approx(1.0), "another's bytes count too"
    now[0] += 1.0
    assert pace.take(100) == approx(0.1)
    now[0] += 60
    assert pace.take(2000) == approx(2.0), "a minute without a download is no reason to hurry"
