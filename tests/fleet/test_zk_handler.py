"""Waiting for kazoo's sockets: what has been read ahead counts as there, and what ended shows."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from fleet.zk_handler import Handler, ReadAhead


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, as kazoo has it, and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = Handler().create_connection(server.getsockname()[:2], timeout=5)
        theirs, _ = server.accept()
        ours.setblocking(False)
        with ours, theirs:
            yield ours, theirs


def ready(*sockets: socket.socket, seconds: float = 5.0) -> list[socket.socket]:
    return Handler().select(sockets, [], [], seconds)[0]


def test_what_was_read_ahead_is_handed_out_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert isinstance(ours, ReadAhead)
    theirs.sendall(b"abcdefgh")
    assert ready(ours) == [ours]
    assert (ours.recv(4), ours.pending()) == (b"abcd", 4)
    assert ready(ours) == [ours], "the kernel has nothing more, and there is something to read"
    assert (ours.recv(100), ours.pending()) == (b"efgh", 0)
    assert ready(ours, seconds=0.01) == []
    with pytest.raises(BlockingIOError):
        ours.recv(4)


def test_what_is_kept_hides_no_other_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    """Else answers that keep coming would keep questions from being sent."""
    ours, theirs = pair
    theirs.sendall(b"ab")
    assert ready(ours)
    ours.recv(1)
    a, b = socket.socketpair()
    with a, b:
        a.send(b"\0")
        assert ready(ours, b) == [ours, b]


def test_a_wait_ends_in_time_and_never_early(pair: tuple[socket.socket, socket.socket]) -> None:
    began = time.monotonic()
    assert ready(pair[0], seconds=0.0104) == []
    assert time.monotonic() - began >= 0.0104


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_end_is_something_to_read(pair: tuple[socket.socket, socket.socket], how: str) -> None:
    ours, theirs = pair
    if how == "reset":
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert ready(ours) == [ours]
    if how == "reset":
        with pytest.raises(ConnectionResetError):
            ours.recv(4)
    else:
        assert ours.recv(4) == b""


def test_writing_waits_for_room(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    assert Handler().select([], [ours], [], 5)[1] == [ours]
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(b"x" * 100_000)
    assert Handler().select([], [ours], [], 0.01)[1] == []


def test_a_closed_socket_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    with pytest.raises(ValueError, match="descriptor"):
        ready(pair[0])
