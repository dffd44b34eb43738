"""What a request may bring: its body's size and how long that takes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from starlette.types import Message, Receive, Scope, Send

from barrier.limits import BODY_BYTES, BodyLimit
from tests.barrier.http import TOKENS, Http

BEARER = {"authorization": f"Bearer {TOKENS['admin']}"}
JSON = BEARER | {"content-type": "application/json"}


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 5 * BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_anybody_looks_at_it(http: Http, size: int, chunked: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for at in range(0, size, 65536):
            yield b" " * min(65536, size - at)

    body = pieces() if chunked else b" " * size
    for headers in (BEARER, {}):  # whoever asks
        answer = http._client.put("/v1/services/shop/config", content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert answer.json()["detail"] == f"the body is larger than {BODY_BYTES} bytes"
        body = b" " * size
    assert http("GET", "/v1/services").json() == []


def test_the_largest_body_is_looked_at(http: Http) -> None:
    config = json.dumps({"keep": 7}).encode()
    answer = http._client.put("/v1/services/shop/config", content=config.ljust(BODY_BYTES), headers=JSON)
    assert (answer.status_code, answer.json()["keep"]) == (201, 7)


def test_an_endless_body_is_cut_off(http: Http) -> None:
    at = urlsplit(http.url)
    with socket.create_connection((at.hostname, at.port or 80), timeout=20) as caller:
        caller.sendall(b"POST /v1/services/shop/rollouts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        with pytest.raises(OSError):  # reset or closed, as the kernel has it
            for _ in range(64 * 1024):
                caller.sendall(piece)


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    said: list[Message] = []

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was asked")

    async def receive() -> Message:
        if not said:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    async def ask() -> None:
        await BodyLimit(never, seconds=0.05)({"type": "http", "method": "PUT"}, receive, send)

    asyncio.run(asyncio.wait_for(ask(), 10))
    assert said[0]["status"] == 408
    assert "did not arrive within 0.05 s" in said[1]["body"].decode()


def test_a_caller_that_goes_away_is_not_answered() -> None:
    said: list[Message] = []

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was asked")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    asyncio.run(BodyLimit(never)({"type": "http", "method": "PUT"}, receive, send))
    assert said == []
