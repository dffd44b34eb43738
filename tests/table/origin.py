"""The hosts: a port for each version. They stamp, and say in their answer what they were asked.

Written on bare sockets because what arrives is hostile: any method and any header must come through as it was sent.
"""

from __future__ import annotations

import asyncio
import json
import threading

from tests.table.request import status_at


class Origin:
    def __init__(self, versions: tuple[str, ...]) -> None:
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(versions,), daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self, versions: tuple[str, ...]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(versions))
        self._loop.close()

    async def _serve(self, versions: tuple[str, ...]) -> None:
        self._stop = asyncio.Event()
        servers = []
        for v in versions:
            server = await self._loop.create_server(lambda v=v: _Host(v), "127.0.0.1", 0)
            self.ports[v] = server.sockets[0].getsockname()[1]
            servers.append(server)
        self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()


class _Host(asyncio.Protocol):
    def __init__(self, version: str) -> None:
        self._version = version
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines[1:])]
            length = int(dict(headers).get("content-length", "0"))
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            method, target = lines[0].split(" ")[:2]
            self._answer(method, target, headers)
            if ("connection", "close") in headers:  # as Varnish's probes ask
                assert self._transport is not None
                self._transport.close()

    def _answer(self, method: str, target: str, headers: list[tuple[str, str]]) -> None:
        assert self._transport is not None
        said = {"build": self._version, "method": method, "target": target, "headers": headers}
        body = json.dumps(said).encode()
        age = "max-age=60" if "/cached/" in target else "no-store"
        head = (
            f"HTTP/1.1 {status_at(target, self._version)} Said\r\nx-served-version: {self._version}\r\n"
            f"Cache-Control: {age}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if method == "HEAD" else body))
