"""Which loopback ports processes get."""

from __future__ import annotations

import socket

from hostagent.ports import RANGE, free


def test_free_ones_that_nobody_else_was_given() -> None:
    first = free(3, set(), "10.0.0.1:8000")
    assert len(set(first)) == 3 and set(first) <= set(RANGE)
    with socket.socket() as s:
        s.bind(("127.0.0.1", first[0]))
        s.listen()
        second = free(3, {f"127.0.0.1:{first[1]}"}, "10.0.0.1:8000")
    assert not {first[0], first[1]} & set(second)


def test_hosts_that_share_a_machine_look_in_other_places() -> None:
    assert not set(free(2, set(), "127.0.0.11:8000")) & set(free(2, set(), "127.0.0.12:8000"))


def test_none_are_left() -> None:
    assert free(1, {f"127.0.0.1:{p}" for p in RANGE}, "x") == []
