"""A browser as the edge sees it: loads a page, then lives on that page's build until told to move.

Owns the HTTP requests of one simulated user. It records what it saw and judges nothing. It never repeats a request:
a repeat would hide a failure. Connections are those of a load balancer: kept alive, but given up well before a
server would close them, so that no request is lost to a race for an idle connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import aiohttp

from pinrail.demo.check import Way
from pinrail.demo.observe import Kind, Log, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds that an idle connection is used again; servers keep theirs at least 5 s.
KEEPALIVE = 2.0
TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5, sock_read=10)

_BUILD = re.compile(r'<html[^>]*\sdata-build="([^"]+)"')
_ASSET = re.compile(r'(?:src|href)="(/assets/[^"]+)"')
_IN_ASSET = re.compile(r'data-build="([^"]+)"|BUILD\s*=\s*"([^"]+)"')


@dataclass(frozen=True)
class Target:
    """Where the load goes, and what the service calls its pins."""

    way: Way
    #: Edge name -> base URL.
    edges: Mapping[str, str]
    #: Host header; None: the URL's own.
    host: str | None = None
    header: str = "x-deployment-id"
    cookie: str = "__dpl"
    #: Where a load balancer says which edge it chose; None: there is none, and the edge is the one that was asked.
    chosen: str | None = None


@dataclass(frozen=True)
class Page:
    number: int
    build: str
    assets: tuple[str, ...]
    cookie: str | None
    generation: int | None


class Pace:
    """Think times. They grow with the answers' own times, so that a busy machine is asked less."""

    def __init__(self, mean: float, rng: random.Random) -> None:
        self._mean = mean
        self._rng = rng
        self._latency = 0.0

    def answered(self, seconds: float) -> None:
        self._latency += (seconds - self._latency) * 0.02

    def think(self) -> float:
        return self._rng.expovariate(1 / (self._mean + 2 * self._latency))


@asynccontextmanager
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    """What all browsers share. A request that the library sends twice is made visible by ``_Sent``."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE)
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_sent)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=TIMEOUT,
        trace_configs=[trace],
        headers={"User-Agent": "Mozilla/5.0 (pinrail demo)"},
    ) as session:
        yield session


async def _sent(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceRequestHeadersSentParams) -> None:
    if isinstance(context.trace_request_ctx, _Sent):
        context.trace_request_ctx.times += 1


@dataclass
class _Sent:
    """The library repeats a GET once when a kept connection breaks; its user must not be fooled by that."""

    times: int = 0


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    cookies: SimpleCookie
    body: bytes


class Browser:
    def __init__(
        self,
        number: int,
        target: Target,
        session: aiohttp.ClientSession,
        log: Log,
        *,
        clock: Callable[[], float],
        pace: Pace,
        rng: random.Random,
    ) -> None:
        self._number = number
        self._target = target
        self._session = session
        self._log = log
        self._clock = clock
        self._pace = pace
        self._rng = rng
        self._pages = 0
        self._cookie: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Visit after visit until ``stop``; the request that is out then is still finished and recorded."""
        while not stop.is_set():
            page = await self.open()
            if page is not None:
                await self._stay(page, stop)
            await self._think(stop)

    async def open(self) -> Page | None:
        """Load ``/`` as a navigation does: no pin, the cookie if there is one. None where no page came."""
        self._pages += 1
        headers = {
            "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Site": "none",
            "Upgrade-Insecure-Requests": "1",
        }
        record, answer = await self._fetch(Kind.DOCUMENT, "GET", "/", headers, page=None)
        if answer is None or answer.status != 200:
            self._log.add(record)
            return None
        html = answer.body.decode(errors="replace")
        build = _BUILD.search(html)
        if morsel := answer.cookies.get(self._target.cookie):
            self._cookie = morsel.value
            record = replace(record, generation=_generation(morsel.value))
        if not build:
            self._log.add(replace(record, error="the page names no build"))
            return None
        self._log.add(replace(record, body=build[1]))
        assets = tuple(a.replace("&amp;", "&") for a in _ASSET.findall(html))
        return Page(self._pages, build[1], assets, self._cookie, _generation(self._cookie))

    async def _stay(self, page: Page, stop: asyncio.Event) -> None:
        """Use the page: its assets first, then XHRs, until moved or done. Some tabs stay open much longer."""
        for asset in page.assets:
            if await self.asset(page, asset):
                return
        rounds = self._rng.randint(40, 80) if self._rng.random() < 0.25 else self._rng.randint(4, 12)
        for _ in range(rounds):
            await self._think(stop)
            if stop.is_set() or await self._use(page):
                return

    async def _use(self, page: Page) -> bool:
        """One thing that a page does; True: its answer makes the page reload itself."""
        draw = self._rng.random()
        if draw < 0.62:
            return await self.feed(page)
        if draw < 0.87:
            return await self.save(page)
        if draw < 0.96 and page.assets:
            return await self.asset(page, self._rng.choice(page.assets))
        # A slow one keeps running while the page goes on polling.
        long = self.slow(page) if draw < 0.98 else self.stream(page)
        return any(await asyncio.gather(long, self.feed(page)))

    async def feed(self, page: Page) -> bool:
        return await self._json(Kind.FEED, page, "GET", "/api/feed")

    async def slow(self, page: Page) -> bool:
        return await self._json(Kind.SLOW, page, "GET", f"/api/slow?ms={self._rng.randint(100, 600)}")

    async def save(self, page: Page) -> bool:
        body = self._rng.randbytes(self._rng.randint(1, 4096))
        return await self._json(Kind.SAVE, page, "POST", "/api/save", body)

    async def stream(self, page: Page) -> bool:
        """Half a stream is an error (the library notices a missing last chunk), and so is one of two builds."""
        record, answer = await self._fetch(
            Kind.STREAM, "GET", f"/api/stream?ms={self._rng.randint(200, 700)}", self._xhr(page), page
        )
        if answer is not None and answer.status == 200:
            record = _read_stream(record, answer.body)
        return self._done(record, page)

    async def asset(self, page: Page, path: str) -> bool:
        """As ``<script src>`` asks for it: no header, the pin in the query that the page wrote there.

        Its name is the hash of its content, so the right bytes are right whichever version they came through.
        """
        headers = {"Accept": "*/*", "Sec-Fetch-Dest": "script", "Sec-Fetch-Mode": "no-cors"}
        record, answer = await self._fetch(Kind.ASSET, "GET", path, headers, page)
        if answer is not None and answer.status == 200:
            named = _IN_ASSET.search(answer.body.decode(errors="replace"))
            if not named or (named[1] or named[2]) != page.build:
                record = replace(record, error="the asset is not the one that the page asked for")
        return self._done(record, page)

    def _xhr(self, page: Page) -> dict[str, str]:
        return {
            "Accept": "application/json",
            "Sec-Fetch-Dest": "empty",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Site": "same-origin",
            self._target.header: page.build,
        }

    async def _json(self, kind: Kind, page: Page, method: str, path: str, body: bytes | None = None) -> bool:
        record, answer = await self._fetch(kind, method, path, self._xhr(page), page, body)
        if answer is not None and answer.status == 200:
            record = _read_json(record, answer.body, body)
        return self._done(record, page)

    def _done(self, record: Record, page: Page) -> bool:
        """Record it; True where a real page would reload: told that its pin is retired, or given a foreign answer."""
        self._log.add(record)
        if self._target.way is Way.PINNED:
            return record.verdict == "retired"
        return record.answered not in (None, page.build)

    async def _fetch(
        self,
        kind: Kind,
        method: str,
        path: str,
        headers: dict[str, str],
        page: Page | None,
        body: bytes | None = None,
    ) -> tuple[Record, _Answer | None]:
        edge = self._rng.choice(sorted(self._target.edges))
        if self._cookie is not None:
            headers["Cookie"] = f"{self._target.cookie}={self._cookie}"
        if self._target.host is not None:
            headers["Host"] = self._target.host
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        sent = _Sent()
        began = self._clock()
        answer, error = None, None
        self._log.open += 1
        try:
            answer = await self._exchange(method, self._target.edges[edge] + path, headers, body, sent)
        except TimeoutError:
            error = "no answer in time"
        except aiohttp.ClientPayloadError as e:
            error = f"truncated: {e}"
        except (aiohttp.ClientError, OSError) as e:
            error = f"connection: {e or type(e).__name__}"
        finally:
            self._log.open -= 1
        ended = self._clock()
        self._pace.answered(ended - began)
        if error is None and sent.times > 1:
            # aiohttp did so by itself; what it was sent for first is what counts, and that got no answer.
            answer, error = None, "connection: lost, and the request was sent again"
        record = Record(
            began=began,
            ended=ended,
            client=self._number,
            page=page.number if page else self._pages,
            kind=kind,
            edge=self._by(answer) or edge,
            pin=page.build if page else None,
            generation=page.generation if page else None,
            status=answer.status if answer else 0,
            said=answer.headers.get("x-deployment-id") if answer else None,
            verdict=answer.headers.get("x-deployment-status") if answer else None,
            error=error,
        )
        return record, answer if error is None else None

    def _by(self, answer: _Answer | None) -> str | None:
        return answer.headers.get(self._target.chosen) if answer and self._target.chosen else None

    async def _exchange(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, sent: _Sent
    ) -> _Answer:
        async with self._session.request(
            method, url, headers=headers, data=body, allow_redirects=False, trace_request_ctx=sent
        ) as response:
            return _Answer(response.status, response.headers, response.cookies, await response.read())

    async def _think(self, stop: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(stop.wait(), self._pace.think())
        except TimeoutError:
            return


def _read_json(record: Record, raw: bytes, sent: bytes | None) -> Record:
    try:
        said = json.loads(raw)
        build = said["build"]
    except (ValueError, KeyError, TypeError):
        return replace(record, error=f"not the JSON that was asked for: {raw[:60]!r}")
    if sent is not None and said.get("sha256") != hashlib.sha256(sent).hexdigest():
        return replace(record, body=build, error="the body that arrived is not the one that was sent")
    return replace(record, body=build)


def _read_stream(record: Record, raw: bytes) -> Record:
    try:
        builds = {json.loads(line)["build"] for line in raw.splitlines()}
    except (ValueError, KeyError, TypeError):
        return replace(record, error=f"not the lines of JSON that were asked for: {raw[:60]!r}")
    if len(builds) != 1:
        return replace(record, error=f"a stream of {len(builds)} builds")
    return replace(record, body=builds.pop())


def _generation(cookie: str | None) -> int | None:
    """The first field of ``generation.version.bucket``."""
    first = (cookie or "").partition(".")[0]
    return int(first) if first.isdigit() else None
