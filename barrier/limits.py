"""What is limited before anything looks at a request: its body's size and time, and how many come without a token."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from barrier.problems import Problem, slow_down
from barrier.rates import Rate

#: Largest body of a request. A service's configuration, the largest that there is, has a few thousand.
BODY_BYTES = 1024 * 1024
#: Seconds for a body to arrive.
BODY_SECONDS = 30.0
#: Read and thrown away of a body that is too large, so that its sender gets to read the answer.
_WASTED_BYTES = 8 * BODY_BYTES


class BodyLimit:
    """Answers 413 and 408; the application gets a whole body in one piece."""

    def __init__(self, app: ASGIApp, *, size: int = BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._size = size
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._body(receive)
        except Problem as e:
            await e.answer()(scope, receive, send)
            return
        except TimeoutError:
            late = Problem(408, f"the body did not arrive within {self._seconds:g} s", headers={"connection": "close"})
            await late.answer()(scope, receive, send)
            return
        if body is None:  # the caller is gone
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, replay, send)

    async def _body(self, receive: Receive) -> bytes | None:
        kept, seen = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            seen += len(piece)
            if seen <= self._size:
                kept += piece
            more = message.get("more_body", False)
            if seen > self._size and (not more or seen > _WASTED_BYTES):
                raise Problem(413, f"the body is larger than {self._size} bytes", headers={"connection": "close"})
            if not more:
                return bytes(kept)


class OpenLimit:
    """Answers 429 to an address that asks too often for what needs no token: pages, health, metrics, descriptions."""

    def __init__(self, app: ASGIApp, *, rate: Rate) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/v1/"):
            address = scope["client"][0] if scope.get("client") else ""
            try:
                slow_down(self._rate.take(address), f"too many requests from {address}")
            except Problem as e:
                await e.answer()(scope, receive, send)
                return
        await self._app(scope, receive, send)
