"""The sample service: a small page that behaves as a real front end does. Plain ASGI, so that a request costs little.

What it says it is, it takes from its surroundings: the version from PINRAIL_VERSION, the host and the slot likewise.
The page and its script are rendered once, at the start; the script's name is the hash of its bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HERE = Path(__file__).resolve().parent
BUILD = os.environ.get("PINRAIL_VERSION") or "dev"
HOST = os.environ.get("PINRAIL_HOST", "")
SLOT = os.environ.get("PINRAIL_SLOT", "")
NEVER_READY = (HERE / "NEVER_READY").exists() or bool(os.environ.get("NGAPP_NEVER_READY"))

#: Longest that anyone may ask /api/slow and /api/stream to take, in milliseconds.
LONGEST = 60_000
CHUNK_SECONDS = 0.1

# Cached at the edge for a moment, so that the version in the cache's key matters; never in a browser.
PAGE_CACHE = b"public, max-age=0, s-maxage=1"
ASSET_CACHE = b"public, max-age=31536000, immutable"
NO_STORE = b"no-store"
JSON = b"application/json"


class Static(NamedTuple):
    """Something rendered once: conditional requests for it get 304."""

    body: bytes
    type: bytes
    cache: bytes
    etag: bytes


def _static(text: str, mime: bytes, cache: bytes) -> Static:
    body = text.encode()
    return Static(body, mime, cache, b'"%s"' % hashlib.sha256(body).hexdigest()[:16].encode())


def _render() -> dict[str, Static]:
    edition = json.loads((HERE / "edition.json").read_text())
    script = (HERE / "app.js").read_text().replace("__BUILD__", json.dumps(BUILD))
    script = script.replace("__GREETING__", json.dumps(edition["greeting"]))
    asset = _static(script, b"text/javascript; charset=utf-8", ASSET_CACHE)
    path = f"/assets/app.{asset.etag.decode().strip(chr(34))}.js"
    page = (HERE / "page.html").read_text()
    for name, value in (("BUILD", BUILD), ("SCRIPT", path), ("COLOUR", edition["colour"])):
        page = page.replace(f"__{name}__", html.escape(value))
    return {"/": _static(page, b"text/html; charset=utf-8", PAGE_CACHE), path: asset}


STATIC = _render()
FEED = json.dumps({"build": BUILD, "host": HOST, "slot": SLOT, "pid": os.getpid()}).encode()


async def _answer(
    send: Send, status: int, body: bytes, mime: bytes = JSON, cache: bytes = NO_STORE, more: Headers | None = None
) -> None:
    headers = [
        (b"content-type", mime),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", cache),
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _problem(send: Send, status: HTTPStatus, detail: str, more: Headers | None = None) -> None:
    body = json.dumps({"build": BUILD, "status": status.value, "detail": detail}).encode()
    await _answer(send, status, body, more=more)


async def _static_answer(scope: Scope, send: Send, found: Static) -> None:
    wanted = b",".join(v for k, v in scope["headers"] if k == b"if-none-match")
    if wanted == b"*" or found.etag in (tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")):
        headers = [(b"etag", found.etag), (b"cache-control", found.cache)]
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body"})
        return
    await _answer(send, 200, found.body, found.type, found.cache, [(b"etag", found.etag)])


def _milliseconds(scope: Scope) -> int | None:
    """The query's ``ms``, 0 without one; None where it is not a number, or too large a one."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("ms", ["0"])[0]
    if not (given.isascii() and given.isdigit() and len(given) <= 6):
        return None
    return int(given) if int(given) <= LONGEST else None


async def _feed(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer(send, 200, FEED)


async def _healthz(scope: Scope, receive: Receive, send: Send) -> None:
    body = json.dumps({"build": BUILD, "ready": not NEVER_READY}).encode()
    await _answer(send, 503 if NEVER_READY else 200, body)


async def _slow(scope: Scope, receive: Receive, send: Send) -> None:
    ms = _milliseconds(scope)
    if ms is None:
        await _problem(send, HTTPStatus.BAD_REQUEST, f"ms must be a number from 0 to {LONGEST}")
        return
    await asyncio.sleep(ms / 1000)
    await _answer(send, 200, FEED)


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    """One line of JSON at once and every 100 ms, for as long as asked."""
    ms = _milliseconds(scope)
    if ms is None:
        await _problem(send, HTTPStatus.BAD_REQUEST, f"ms must be a number from 0 to {LONGEST}")
        return
    headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", NO_STORE), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    loop = asyncio.get_running_loop()
    end = loop.time() + ms / 1000
    number = 0
    while number == 0 or loop.time() < end:
        line = json.dumps({"build": BUILD, "chunk": number}).encode() + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})
        number += 1
        await asyncio.sleep(max(0.0, min(CHUNK_SECONDS, end - loop.time())))
    await send({"type": "http.response.body"})


async def _save(scope: Scope, receive: Receive, send: Send) -> None:
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # nobody is left to answer
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await _answer(send, 200, json.dumps({"build": BUILD, "bytes": size, "sha256": digest.hexdigest()}).encode())


async def _fail(scope: Scope, receive: Receive, send: Send) -> None:
    """/fail/STATUS answers that status. 204 and 304 have no body, whoever asks."""
    given = scope["path"].removeprefix("/fail/")
    if not (len(given) == 3 and given.isascii() and given.isdigit() and 200 <= int(given) <= 599):
        await _problem(send, HTTPStatus.NOT_FOUND, "/fail/ takes a status from 200 to 599")
        return
    if given in ("204", "304"):
        await send({"type": "http.response.start", "status": int(given), "headers": [(b"cache-control", NO_STORE)]})
        await send({"type": "http.response.body"})
        return
    await _answer(send, int(given), json.dumps({"build": BUILD, "status": int(given)}).encode())


READING = ("GET", "HEAD")
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
ROUTES: dict[str, tuple[tuple[str, ...], Handler]] = {
    "/api/feed": (READING, _feed),
    "/api/slow": (READING, _slow),
    "/api/stream": (READING, _stream),
    "/api/save": (("POST",), _save),
    "/healthz": (READING, _healthz),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    path, method = scope["path"], scope["method"]
    if found := STATIC.get(path):
        if method in READING:
            await _static_answer(scope, send, found)
            return
        methods: tuple[str, ...] = READING
    elif path.startswith("/fail/"):
        await _fail(scope, receive, send)
        return
    elif route := ROUTES.get(path):
        methods, handler = route
        if method in methods:
            await handler(scope, receive, send)
            return
    else:
        await _problem(send, HTTPStatus.NOT_FOUND, f"there is no {path} in build {BUILD}")
        return
    allow = [(b"allow", ", ".join(methods).encode())]
    await _problem(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {' and '.join(methods)}", allow)
