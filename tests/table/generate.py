"""Requests by chance: mostly what browsers send, with whatever a hostile or broken client may do to it.

Seeded, so that a failure can be had again; ``simpler`` is how a failing one is made small.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tests.table.cases import OTHER_TOKEN, TOKEN
from tests.table.reference import Service
from tests.table.request import Request

_UNKNOWN = (
    "zzz",
    "b",
    "a",
    "AA",
    "A.",
    ".A",
    "A B",
    "A,B",
    "A, B",
    "A;B",
    '"A"',
    "%41",
    "A%00",
    "*",
    ".*",
    "A|B",
    "-",
    "none",
)
_ODD = (
    "B" * 64,
    "A" * 5000,
    "unknown",
    "(null)",
    "a1xb-2_c",
    TOKEN.upper(),
    TOKEN[:-1],
    TOKEN + "x",
    "x-pinrail-version",
)
_PATHS = (
    *(
        "/",
        "/api",
        "/api/feed",
        "/page",
        "/cached/data",
        "/cart",
        "/cart/1",
        "/cartoon",
        "/w/x",
        "/w",
        "//api",
        "/./api",
    ),
    *("/status-404", "/status-500", "/cart/status-410", "/a%20b", "/x;dpl=A", "/dpl=A", "/a&dpl=A", "/..%2fassets/x"),
)
_ASSETS = (
    *("/assets/app.js", "/assets/cached/a.js", "/assets/only-A/a.js", "/assets/only-B/b.js", "/assets/only-C/c.js"),
    *("/assets/only-Z/z.js", "/assets/status-404", "/assets/status-500", "/static/x.js", "/static/only-B/x", "/a.b/x"),
    *("/aXb/x", "/assets", "/Assets/x", "/assetsx/y"),
)
_INTERNAL = (
    "version",
    "fetch",
    "outcome",
    "status",
    "doc",
    "immutable",
    "set",
    "service",
    "error",
    "c",
    "cv",
    "cg",
    "cb",
    "key",
)


@dataclass
class Generator:
    """Draws requests to ``services``, one after the other."""

    random: random.Random
    services: Sequence[Service]

    def requests(self, count: int) -> Iterator[Request]:
        return (self.request(self.random.choice(self.services)) for _ in range(count))

    def request(self, service: Service) -> Request:
        return self._browser(service) if self.random.random() < 0.35 else self._any(service)

    def _browser(self, service: Service) -> Request:
        """What a browser sends whose page came from here, or from an edge that is ahead: nothing odd."""
        draw, pin, plan = self.random, service.config.pin, service.plan
        headers = [("Host", f" {draw.choice(service.config.match).host.replace('*', 'a')}")]
        version = draw.choice((*plan.serving, *plan.retired, "A", "B"))
        generation = max(0, plan.generation + draw.choice((-1, 0, 0, 1)))
        if draw.random() < 0.8:
            headers.append(("Cookie", f" {pin.cookie}={generation}.{version}.{draw.randrange(10_000)}"))
        if draw.random() < 0.5:
            return Request(
                "GET", draw.choice(("/", "/w/x", "/cart")), headers=(*headers, ("Sec-Fetch-Dest", " document"))
            )
        if draw.random() < 0.5:
            path = draw.choice(("/api", "/cart/1", "/w/x", "/assets/app.js"))
            return Request("GET", f"{path}?{pin.query}={version}", headers=(*headers, ("Sec-Fetch-Dest", " script")))
        named = [(pin.header, f" {version}")] if draw.random() < 0.6 else []
        headers += [("Sec-Fetch-Dest", " empty"), ("Accept", " */*"), *named]
        return Request(draw.choice(("GET", "POST")), draw.choice(("/api", "/cart/1", "/w/x")), headers=tuple(headers))

    def _any(self, service: Service) -> Request:
        draw, pin = self.random, service.config.pin
        headers: list[tuple[str, str]] = []
        method = self._rarely(self._method, "GET" if draw.random() < 0.8 else "POST")
        kind = draw.random()
        path = draw.choice(_ASSETS if kind < 0.25 else _PATHS)
        if kind > 0.4 and draw.random() < 0.7:
            headers += self._document()
        elif draw.random() < 0.6:
            headers += self._fetch()
        if draw.random() < 0.45:
            headers += [(self._case(pin.header), self._space(self._pin(service))) for _ in range(self._several())]
        if draw.random() < 0.65:
            headers += self._cookies(service)
        if draw.random() < 0.25:
            headers += self._hostile(service)
        body = b""
        if method not in ("GET", "HEAD") or draw.random() < 0.04:
            body = b"x" * draw.choice((0, 1, 100, 2048, 2049))
        target, host = path + self._query(service), self._host(service)
        if draw.random() < 0.03:
            target = f"{draw.choice(('http', 'HTTP'))}://{host}{target}"
            host = draw.choice((host, "elsewhere.example"))
        draw.shuffle(headers)
        for _ in range(draw.choice((0, 2)) if draw.random() < 0.02 else 1):
            headers.insert(0, (self._case("Host"), self._space(host)))
        protocol = "HTTP/1.0" if draw.random() < 0.02 else "HTTP/1.1"
        return Request(method, target, protocol, tuple(headers), body)

    def _rarely(self, odd: object, usual: str) -> str:
        return str(odd()) if self.random.random() < 0.12 else usual  # type: ignore[operator]

    def _method(self) -> str:
        return self.random.choice(
            ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW", "TRACE", "get", "GETX", "PROPFIND")
        )

    def _several(self) -> int:
        return self.random.choice((1, 1, 1, 1, 1, 1, 2, 3))

    def _case(self, name: str) -> str:
        return self.random.choice((name, name, name.lower(), name.upper(), name.title()))

    def _space(self, value: str) -> str:
        return self.random.choice((" ", " ", " ", "", "  ", "\t")) + value + self.random.choice(("", "", "", " ", "\t"))

    def _version(self, service: Service) -> str:
        plan, draw = service.plan, self.random
        known = (*plan.serving, *plan.serving, *plan.retired, "A", "B", "C", *(p.version for p in plan.previews))
        return (
            draw.choice(known) if draw.random() < 0.75 else draw.choice(("old", "zzz", "older.1", "a1.b-2_c", "x.y.z"))
        )

    def _pin(self, service: Service) -> str:
        kind = self.random.random()
        if kind < 0.65:
            return self._version(service)
        if kind < 0.75:
            return self.random.choice((TOKEN, OTHER_TOKEN))
        if kind < 0.8:
            return ""
        return self.random.choice(_UNKNOWN if kind < 0.93 else _ODD)

    def _query(self, service: Service) -> str:
        if self.random.random() < 0.5:
            return ""
        parts = []
        for _ in range(self.random.choice((1, 1, 2, 3))):
            name = service.config.pin.query
            if self.random.random() < 0.3:
                odd = (
                    "x",
                    f"x{name}",
                    f"{name}x",
                    f"x.{name}",
                    name.upper(),
                    "d%70l",
                    "",
                    "dpl",
                    f"{name}[]",
                    f"?{name}",
                )
                name = self.random.choice(odd)
            value = self._pin(service).replace(" ", "+")
            parts.append(name + self.random.choice(("=", "=", "=", "=", "", "==")) + value)
        return (
            "?" + self.random.choice(("&", "&", "&", "&&", ";")).join(parts) + self.random.choice(("", "", "&", "#A"))
        )

    def _cookie(self, service: Service) -> str:
        draw, generation = self.random, service.plan.generation
        kind = draw.random()
        if kind < 0.08:
            return draw.choice(
                (TOKEN, OTHER_TOKEN, "expired-token-0123456789", "garbage", "", "7.A", "..", "7..5", " 7.A.5")
            )
        newer = draw.choice(
            (generation - 1, generation, generation, generation + 1, generation + 2, 0, 999999999, 1000000000)
        )
        bucket = draw.choice((0, 1, 99, 100, 999, 1000, 2499, 2500, 4999, 5000, 9999, draw.randrange(10_000)))
        if kind < 0.2:
            g = draw.choice((f"0{newer}", f"-{newer}", f"+{newer}", f"{newer}e1", "0x9", "", f"{newer}9999999999"))
            return draw.choice(
                (f"{g}.A.5", f"{newer}.A.{bucket}5", f"{newer}.A.0{bucket}", f'"{newer}.A.{bucket}"', f"{newer}.A.-1")
            )
        return f"{newer}.{self._version(service)}.{bucket}"

    def _cookies(self, service: Service) -> list[tuple[str, str]]:
        draw, name = self.random, service.config.pin.cookie
        crumbs = [f"{name}={self._cookie(service)}" for _ in range(self._several())]
        if draw.random() < 0.4:
            crumbs += [
                draw.choice(("s=1", 't="q; x"', "empty=", "flag", f"x{name}=7.A.5", f"{name}x=7.A.5", "__dpl=7.A.1"))
            ]
        if draw.random() < 0.04:
            crumbs += [f"_track{n}={'abc' * draw.randrange(90)}" for n in range(30)]
        if draw.random() < 0.05:
            crumbs += [draw.choice((f"{name} =7.A.5", f"{name.upper()}=8.A.5", f"{name}", f" {name}=8.A.7 ", "=", ""))]
        draw.shuffle(crumbs)
        if draw.random() < 0.15:
            return [(self._case("Cookie"), self._space(c)) for c in crumbs]
        glue = draw.choice(("; ", "; ", "; ", ";", " ; ", ";\t", ";;"))
        return [(self._case("Cookie"), self._space(glue.join(crumbs)))]

    def _document(self) -> list[tuple[str, str]]:
        draw = self.random
        accept = (
            "Accept",
            " " + draw.choice(("text/html,*/*;q=0.8", "TEXT/HTML", "application/xhtml+xml, text/html", "*/*")),
        )
        fetch = ("Sec-Fetch-Dest", " " + draw.choice(("document", "document", "iframe", "Document", "empty", "")))
        mode = ("Sec-Fetch-Mode", " navigate")
        found = draw.choice(([accept], [fetch], [fetch, mode, accept], [accept, fetch], [accept, mode]))
        return [*found, ("X-Requested-With", " XMLHttpRequest")] if draw.random() < 0.1 else found

    def _fetch(self) -> list[tuple[str, str]]:
        destination = self.random.choice(("empty", "script", "style", "image", "document, empty"))
        return [("Sec-Fetch-Dest", f" {destination}"), ("Sec-Fetch-Site", " same-origin"), ("Accept", " */*")]

    def _hostile(self, service: Service) -> list[tuple[str, str]]:
        draw, pin = self.random, service.config.pin
        internal = f"x-pinrail-{draw.choice(_INTERNAL)}"
        value = draw.choice(("A", "B", "1", "doc", "exact", "gone", "8.A.5", service.name, TOKEN, ""))
        named = draw.choice(
            (pin.header, internal, "Cookie", "x-pinrail-fetch", "close", "keep-alive, x-pinrail-version")
        )
        return draw.choice(
            (
                [(self._case(internal), self._space(value))],
                [(self._case(internal), f" {value}"), (self._case(internal), " A"), ("X_Pinrail_Fetch", " A")],
                [("Connection", f" {named}")],
                [("Connection", f" {named}"), (internal, f" {value}")],
                [("X-Forwarded-For", " 10.0.0.1, evil"), ("Authorization", " Basic eA==")],
                [(pin.header.replace("-", "_"), " A"), ("x-served-version", " A"), ("x-deployment-status", " current")],
                [("x-huge", " " + "y" * draw.choice((3000, 7000)))],
            )
        )

    def _host(self, service: Service) -> str:
        draw = self.random
        host = draw.choice(service.config.match).host
        host = draw.choice(("a.", "a.b.", "A-1.")) + host[2:] if host.startswith("*.") else host
        kind = draw.random()
        if kind < 0.8:
            return host
        odd = (host.upper(), host.title(), f"{host}:8080", f"{host}.", f"{host.upper()}.:80", f"{host}:")
        wrong = (
            f"x{host}",
            f"{host}.evil",
            f"{host}:80x",
            "wild.example",
            ".wild.example",
            f"{host}..",
            "127.0.0.1",
            "[::1]",
        )
        return draw.choice(odd if kind < 0.95 else wrong)


def simpler(request: Request) -> Iterator[Request]:
    """What to try in its place: each a little smaller."""
    for n in range(1, len(request.headers)):
        yield replace(request, headers=request.headers[:n] + request.headers[n + 1 :])
    for n, (name, value) in enumerate(request.headers):
        shorter = [value.strip()] if value != value.strip() else []
        shorter += [";".join(p) for p in _without(value.split(";"))] if ";" in value else []
        for v in shorter:
            yield replace(request, headers=(*request.headers[:n], (name, v), *request.headers[n + 1 :]))
    path, _, query = request.written.partition("?")
    if query:
        yield replace(request, written=path)
        for parts in _without(query.split("&")):
            yield replace(request, written=f"{path}?{'&'.join(parts)}")
    if len(request.body) > 1:
        yield replace(request, body=b"x")
        yield replace(request, body=b"")
    if request.protocol != "HTTP/1.1":
        yield replace(request, protocol="HTTP/1.1")


def _without(parts: list[str]) -> Iterator[list[str]]:
    return (parts[:n] + parts[n + 1 :] for n in range(len(parts)))
