"""A real HTTP server that plays one edge and everything behind it; a test turns its honesty off."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class FakeFleet:
    """What all fake edges serve from. ``lie`` names one misbehaviour."""

    default: str = "a"
    serving: tuple[str, ...] = ("a",)
    generation: int = 1
    lie: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    flips: int = 0
    #: What the edges will admit to having counted; added to the truth.
    miscount: int = 0
    seen: list[web.Request] = field(default_factory=list)
    #: Builds whose assets the edges' caches hold.
    cached: set[str] = field(default_factory=lambda: {"a"})

    def release(self, build: str) -> None:
        """Withdraw the oldest, offer and switch: all in one instant."""
        self.serving = (build, self.default)
        self.default = build
        self.cached.add(build)
        self.generation += 1

    def rollback(self) -> None:
        self.default = self.serving[1]
        self.generation += 1

    def choose(self, pin: str | None) -> tuple[str, str, str]:
        """Version, status header, outcome."""
        if pin is None:
            return self.default, "current", "default"
        if self.lie == "flip" and len(self.serving) > 1:
            other = next(v for v in self.serving if v != pin)
            return other, "current", "fault"
        if pin in self.serving:
            return pin, "current" if pin == self.default else "previous", "exact"
        return self.default, "retired", "forced"


def asset_name(build: str) -> str:
    return f"/assets/app.{hashlib.sha256(build.encode()).hexdigest()[:10]}.js"


class FakeEdge:
    """Start with ``async with``; ``url`` is then where it answers, ``/metrics`` included."""

    def __init__(self, fleet: FakeFleet, name: str = "edge-1") -> None:
        self.fleet = fleet
        self.name = name
        self.url = ""
        self._requests: Counter[str] = Counter()
        self._flips = 0

    async def __aenter__(self) -> FakeEdge:
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._document),
                web.get("/assets/{name}", self._asset),
                web.get("/api/feed", self._feed),
                web.get("/api/slow", self._feed),
                web.post("/api/save", self._save),
                web.get("/api/stream", self._stream),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _answer(self, request: web.Request, pin: str | None) -> tuple[str, dict[str, str]]:
        self.fleet.seen.append(request)
        version, status, outcome = self.fleet.choose(pin)
        self._requests[outcome] += 1
        self._flips += outcome in ("forced", "fault")
        if self.fleet.lie == "header":
            return version, {"x-deployment-id": "somebody-else", "x-deployment-status": status}
        return version, {"x-deployment-id": version, "x-deployment-status": status}

    async def _document(self, request: web.Request) -> web.StreamResponse:
        version, headers = self._answer(request, None)
        generation = self.fleet.generation
        had = request.cookies.get("__dpl", "").partition(".")[0]
        if self.fleet.lie == "back" and self.fleet.generation > 1 and had == str(generation):
            version, generation = self.fleet.serving[-1], self.fleet.generation - 1
            headers["x-deployment-id"] = version
        html = (
            f'<!doctype html><html lang="en" data-build="{version}"><head>'
            f'<script src="{asset_name(version)}?dpl={version}"></script></head></html>'
        )
        response = web.Response(text=html, content_type="text/html", headers=headers)
        response.set_cookie("__dpl", f"{generation}.{version}.77", path="/", samesite="Lax")
        return response

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        version, headers = self._answer(request, request.query.get("dpl"))
        if self.fleet.lie == "asset" or request.path not in map(asset_name, self.fleet.cached):
            return web.Response(status=404, headers=headers)
        build = next(b for b in self.fleet.cached if asset_name(b) == request.path)
        version = build if self.fleet.lie != "flip" else version
        return web.Response(text=f'const BUILD = "{version}";', content_type="text/javascript", headers=headers)

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        version, headers = self._answer(request, request.headers.get("x-deployment-id"))
        if self.fleet.lie == "500":
            return web.Response(status=500, headers=headers)
        if self.fleet.lie == "text":
            return web.Response(text="hello", headers=headers)
        response = web.json_response({"build": version, "host": "h", "slot": 0, "pid": 1}, headers=headers)
        if self.fleet.lie in ("close", "close once") and request.transport is not None:
            self.fleet.lie = None if self.fleet.lie == "close once" else "close"
            request.transport.close()
        return response

    async def _save(self, request: web.Request) -> web.StreamResponse:
        version, headers = self._answer(request, request.headers.get("x-deployment-id"))
        body = await request.read()
        digest = hashlib.sha256(body + (b"!" if self.fleet.lie == "sha" else b"")).hexdigest()
        return web.json_response({"build": version, "bytes": len(body), "sha256": digest}, headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        version, headers = self._answer(request, request.headers.get("x-deployment-id"))
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(json.dumps({"build": version}).encode() + b"\n")
        if self.fleet.lie == "truncate" and request.transport is not None:
            request.transport.close()
            await asyncio.sleep(0)
            return response
        last = "another" if self.fleet.lie == "two" else version
        await response.write(json.dumps({"build": last}).encode() + b"\n")
        await response.write_eof()
        return response

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        lines = ["# TYPE pinrail_edge_requests_total counter", "# TYPE pinrail_edge_flips_total counter"]
        truth = {**self._requests, "exact": self._requests["exact"] + self.fleet.miscount}
        lines += [
            f'pinrail_edge_requests_total{{service="ngapp",edge="{self.name}",version="v",outcome="{o}"}} {n}'
            for o, n in truth.items()
        ]
        lines.append(
            f'pinrail_edge_requests_total{{service="other",edge="{self.name}",version="v",outcome="exact"}} 99'
        )
        lines.append(
            f'pinrail_edge_flips_total{{service="ngapp",edge="{self.name}",from="a",to="b",cause="c"}} {self._flips}'
        )
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")
