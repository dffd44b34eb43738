"""The index of an archive's chunks: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import chunks
from fleet.chunks import BadIndex, Chunk

LENGTHS = st.lists(st.integers(1, 5000), max_size=40)


def row(lengths: list[int]) -> tuple[Chunk, ...]:
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(
        Chunk(chunks.digest_of(bytes([i])), s, n) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))
    )


@given(LENGTHS)
def test_what_is_written_is_read(lengths: list[int]) -> None:
    assert chunks.decode(chunks.encode(row(lengths)), sum(lengths)) == row(lengths)


@given(LENGTHS, st.integers(0, 90_000), st.integers(0, 90_000))
def test_those_within_a_range_are_those_that_have_bytes_in_it(lengths: list[int], start: int, end: int) -> None:
    found = chunks.within(row(lengths), start, end)
    assert list(found) == [c for c in row(lengths) if c.start < end and c.end > start]


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_anything_else_is_no_index(data: bytes, size: int) -> None:
    with pytest.raises(BadIndex):
        chunks.decode(data, size + 1)


def test_why_it_is_none() -> None:
    good = chunks.encode(row([10, 20]))
    for data, size, words in (
        (b"hello", 30, "not an index"),
        (good[:-1], 30, "cut off"),
        (good, 31, "of an archive of 30 bytes, and the archive has 31"),
        (good[:-4] + bytes(4), 10, "a chunk of no bytes"),
    ):
        with pytest.raises(BadIndex, match=words):
            chunks.decode(data, size)
