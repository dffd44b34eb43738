"""The edges' metrics over HTTP: one page of text each, within a size and a time. Owns the connections to edges.

Where to ask stands in ZooKeeper, so it is believed little: only ``/metrics`` over plain HTTP or TLS is asked for, no
redirect is followed, no proxy is used, no credential is sent, and nothing of an answer is passed on but numbers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urlsplit

import httpx

from fleet.model import EdgeInfo

#: Seconds for a whole answer.
SECONDS = 3.0
#: Bytes of an answer. An edge's has some ten thousand.
MOST_BYTES = 4 * 1024 * 1024
#: Edges that are asked at the same time.
AT_ONCE = 32


class NoAnswer(Exception):
    """The edge's counters are not known; the message says why."""


def address(info: EdgeInfo) -> str:
    """The URL of an edge's metrics. Raises NoAnswer for what is no such place."""
    said = info.metrics if "://" in info.metrics else f"http://{info.metrics}"
    try:
        parts = urlsplit(said)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise NoAnswer(f"it says no address of its metrics: {info.metrics[:100]!r}")
    if host in ("0.0.0.0", "::", "*"):  # noqa: S104  # it listens everywhere: where users reach it, it is
        host = urlsplit(info.url).hostname or host
    try:
        if ipaddress.ip_address(host).is_link_local:
            raise NoAnswer(f"{host} is a link-local address, which is not asked")
    except ValueError:
        pass  # a name
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}/metrics" if port else f"{parts.scheme}://{shown}/metrics"


class Scraper:
    """Asks edges. Belongs to one event loop."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=SECONDS,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
            headers={"accept": "text/plain", "accept-encoding": "identity"},
        )
        self._room = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        await self._client.aclose()

    async def __call__(self, info: EdgeInfo) -> str:
        """The text of the edge's metrics. Raises NoAnswer."""
        url = address(info)
        async with self._room:
            try:
                async with asyncio.timeout(SECONDS):
                    return await self._text(url)
            except TimeoutError as e:
                raise NoAnswer(f"{url} does not answer within {SECONDS:g} s") from e
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
                raise NoAnswer(f"{url} does not answer: {e or type(e).__name__}") from e

    async def _text(self, url: str) -> str:
        kept = bytearray()
        async with self._client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise NoAnswer(f"{url} answers {answer.status_code}")
            async for piece in answer.aiter_raw():
                kept += piece
                if len(kept) > MOST_BYTES:
                    raise NoAnswer(f"{url} answers with more than {MOST_BYTES} bytes")
        return kept.decode(errors="replace")
