"""ZooKeeper's protocol, as much of it as thousands of thin sessions in one process need: one socket and no thread each.

kazoo has three threads a session. A session that is lost is an error here: what is measured needs none of that.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable

#: Seconds of silence that the server forgives; a third of it is the pause between two pings.
SESSION_SECONDS = 30.0
_OPEN = struct.pack(">ii", 1, 31) + struct.pack(">i5si6s", 5, b"world", 6, b"anyone")
_CREATE, _DELETE, _THERE, _GET, _SET, _CHILDREN, _PING = 1, 2, 3, 4, 5, 8, 11
_NO_NODE, _EXISTS = -101, -110
_EPHEMERAL = 1


class Lost(Exception):
    """The session is over, or the server said what nobody here can deal with."""


class NoNode(Exception):
    """There is no such node."""


def _text(s: str) -> bytes:
    raw = s.encode()
    return struct.pack(">i", len(raw)) + raw


def _bytes(raw: bytes) -> bytes:
    return struct.pack(">i", len(raw)) + raw


class Session(asyncio.Protocol):
    """One session below ``chroot``. ``changed(path)`` is called when a node that was read with a watch changes."""

    def __init__(self, chroot: str, changed: Callable[[str], None]) -> None:
        self._chroot = chroot
        self._changed = changed
        self._kept = bytearray()
        self._pending: deque[asyncio.Future[memoryview]] = deque()
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pinging: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self.requests = self.sent = self.received = 0

    @classmethod
    async def open(cls, host: str, port: int, chroot: str, changed: Callable[[str], None]) -> Session:
        loop = asyncio.get_running_loop()
        _, session = await loop.create_connection(lambda: cls(chroot, changed), host, port)
        await session._ready
        return session

    # -- asyncio's face --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        hello = struct.pack(">iqiqi16x?", 0, 0, int(SESSION_SECONDS * 1000), 0, 16, False)
        self._write(hello)
        self._ping()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._kept += data
        while len(self._kept) >= 4:
            (size,) = struct.unpack_from(">i", self._kept)
            if len(self._kept) < 4 + size:
                return
            packet = memoryview(bytes(self._kept[4 : 4 + size]))
            del self._kept[: 4 + size]
            self._packet(packet)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        why = Lost(f"the connection ended: {exc}")
        if not self._ready.done():
            self._ready.set_exception(why)
        for future in self._pending:
            if not future.done():
                future.set_exception(why)
        self._pending.clear()

    def _packet(self, packet: memoryview) -> None:
        if not self._ready.done():
            if struct.unpack_from(">4xi", packet)[0] <= 0:
                self._ready.set_exception(Lost("the server gives no session"))
            else:
                self._ready.set_result(None)
            return
        number, _, error = struct.unpack_from(">iqi", packet)
        if number == -1:
            (size,) = struct.unpack_from(">i", packet, 24)
            self._changed(str(packet[28 : 28 + size], "utf-8").removeprefix(self._chroot))
        elif number != -2:
            future = self._pending.popleft()
            if future.done():
                return
            if error == _NO_NODE:
                future.set_exception(NoNode())
            elif error not in (0, _EXISTS):
                future.set_exception(Lost(f"the server answers with error {error}"))
            else:
                future.set_result(packet[16:])

    def _write(self, packet: bytes) -> None:
        assert self._transport is not None  # noqa: S101
        self._transport.write(struct.pack(">i", len(packet)) + packet)
        self.sent += len(packet) + 4
        self._sent_at = asyncio.get_running_loop().time()

    def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        pause = SESSION_SECONDS / 3
        if self._ready.done() and loop.time() - self._sent_at >= pause:
            self._write(struct.pack(">ii", -2, _PING))
        self._pinging = loop.call_later(pause, self._ping)

    # -- calls --

    async def _ask(self, kind: int, body: bytes) -> memoryview:
        self._number += 1
        self.requests += 1
        future: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._pending.append(future)
        self._write(struct.pack(">ii", self._number, kind) + body)
        return await future

    async def follow(self, path: str) -> bytes | None:
        """What a node says, None where there is none; its next change, appearance or end is told."""
        name = _text(self._chroot + path) + b"\1"
        while True:
            try:
                said = await self._ask(_GET, name)
                (size,) = struct.unpack_from(">i", said)
                return bytes(said[4 : 4 + max(size, 0)])
            except NoNode:
                try:
                    await self._ask(_THERE, name)  # it appeared between the two: once more
                except NoNode:
                    return None

    async def count(self, path: str) -> int:
        """How many children a node has, whose names travel but are not looked at; watched."""
        said = await self._ask(_CHILDREN, _text(self._chroot + path) + b"\1")
        return int(struct.unpack_from(">i", said)[0])

    async def put(self, path: str, data: bytes, *, ephemeral: bool = True) -> None:
        """Made where it is not there; then it says ``data``."""
        try:
            await self.set(path, data)
        except NoNode:
            await self.create(path, data, ephemeral=ephemeral)

    async def set(self, path: str, data: bytes) -> None:
        await self._ask(_SET, _text(self._chroot + path) + _bytes(data) + struct.pack(">i", -1))

    async def create(self, path: str, data: bytes, *, ephemeral: bool = True) -> None:
        """Parents are made where they are missing; a node that is there already is left as it is."""
        flags = struct.pack(">i", _EPHEMERAL if ephemeral else 0)
        body = _text(self._chroot + path) + _bytes(data) + _OPEN + flags
        try:
            await self._ask(_CREATE, body)
        except NoNode:
            await self.create(path.rpartition("/")[0], b"", ephemeral=False)
            await self._ask(_CREATE, body)

    async def delete(self, path: str) -> None:
        await self._ask(_DELETE, _text(self._chroot + path) + struct.pack(">i", -1))
