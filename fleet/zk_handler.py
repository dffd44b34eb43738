"""How kazoo waits for its sockets, cheaper than by itself: it makes an epoll object for each wait, three to an answer.

Here a wait is one ``poll``, and what has arrived is read at once and handed out in the pieces that kazoo asks for. It
asks a socket that may hold more than the kernel says by ``pending``, as TLS sockets do. For ``fleet.zk`` alone.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

_AT_ONCE = 64 * 1024
#: An end and an error show in reading and in writing.
_READABLE = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL


class ReadAhead(socket.socket):
    """A stream socket that reads what there is, and keeps what was not asked for yet."""

    def __init__(self, taken: socket.socket) -> None:
        """Of ``taken``, which is good for nothing afterwards."""
        timeout = taken.gettimeout()
        super().__init__(taken.family, taken.type, taken.proto, fileno=taken.detach())
        self.settimeout(timeout)
        self._kept = b""
        self._given = 0

    def pending(self) -> int:
        """Bytes that have been read and not been handed out."""
        return len(self._kept) - self._given

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if not self.pending():
            if size >= _AT_ONCE or flags:
                return super().recv(size, flags)
            self._kept, self._given = super().recv(_AT_ONCE), 0
        found = self._kept[self._given : self._given + size]
        self._given += len(found)
        return found


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # kazoo has no types
    """Threads as kazoo has them."""

    def create_connection(self, *args: Any, **kwargs: Any) -> socket.socket:
        made: socket.socket = super().create_connection(*args, **kwargs)
        return made if isinstance(made, ssl.SSLSocket) else ReadAhead(made)

    def select(
        self,
        reading: Sequence[socket.socket],
        writing: Sequence[socket.socket],
        _: Sequence[socket.socket],
        timeout: float | None = None,
    ) -> tuple[list[socket.socket], list[socket.socket], list[socket.socket]]:
        """What of each can be read or written now, or within ``timeout``. ValueError for a socket that was closed."""
        poll = select.poll()
        wanted: dict[int, int] = {}
        for sockets, mask in ((reading, select.POLLIN | select.POLLPRI), (writing, select.POLLOUT)):
            for s in sockets:
                wanted[s.fileno()] = wanted.get(s.fileno(), 0) | mask
        for fd, mask in wanted.items():
            poll.register(fd, mask)
        kept = [s for s in reading if isinstance(s, ReadAhead) and s.pending()]
        found = dict(poll.poll(0 if kept else None if timeout is None else math.ceil(timeout * 1000)))
        readable = [s for s in reading if s in kept or found.get(s.fileno(), 0) & _READABLE]
        return readable, [s for s in writing if found.get(s.fileno(), 0) & _WRITABLE], []
