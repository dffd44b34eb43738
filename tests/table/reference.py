"""The request table in plain Python: what an edge must do with one request. Pure; written from the documents.

``docs/edge.md`` is its source, not a template of any engine: an engine that disagrees is wrong, or the document is.
What HTTP itself asks of any server (a request that is none gets 400) is in ``spoken``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.model import Match, Plan, Preview, ServiceConfig
from fleet.names import BadName, build_name
from tests.table.request import Request

#: In a cookie that is expected: any number from 0 to 9999, because the edge draws it.
DRAWN = "*"
#: Methods that hosts get.
METHODS = ("GET", "HEAD", "PUT", "POST", "OPTIONS", "DELETE", "PATCH")
SAFE = ("GET", "HEAD")
BUCKETS = 10_000


@dataclass(frozen=True)
class Record:
    """What is counted of a request: who answered, as what, and where it came from if that was another version."""

    version: str
    outcome: str
    origin: str
    cause: str
    document: bool

    def text(self, service: str) -> str:
        doc = "doc" if self.document else "-"
        return f"pinrail {service} {self.version} {self.outcome} {self.origin} {self.cause} {doc}"


@dataclass(frozen=True)
class Answer:
    """``build``: whose bytes they are, None where the edge speaks itself. ``cookie``: the value that is set."""

    status: int
    version: str | None = None
    verdict: str | None = None
    build: str | None = None
    cookie: str | None = None
    vary: bool = False
    record: Record | None = None


@dataclass(frozen=True)
class Service:
    """One service as an edge has it. ``healthy``: the versions of which at least one host is well here."""

    name: str
    config: ServiceConfig
    plan: Plan
    healthy: frozenset[str]

    @property
    def known(self) -> frozenset[str]:
        """Versions that this edge can name."""
        return frozenset((*self.plan.serving, *(p.version for p in self.plan.previews), *self.plan.retired))


@dataclass(frozen=True)
class Cookie:
    generation: int
    version: str
    bucket: int
    #: As it was written: what is kept is kept as it was.
    words: tuple[str, str, str]


@dataclass(frozen=True)
class Asked:
    """What a request says of itself."""

    header: str | None
    queries: tuple[str, ...]
    raw_cookie: str | None
    cookie: Cookie | None
    document: bool
    immutable: bool


@dataclass(frozen=True)
class Choice:
    version: str
    verdict: str
    outcome: str
    origin: str = "-"
    cause: str = "-"
    #: The preview's token: it is the cookie, in place of what a version would get.
    token: str | None = None
    conflict: bool = False


# -- which service ------------------------------------------------------------------------------------------------


def belongs(request: Request, services: Sequence[Service]) -> Service | None:
    """By host, then by path; the more exact first."""
    host = re.sub(r":\d+$", "", request.authority).removesuffix(".").lower()
    found = [
        ((match.host == "*", match.host.startswith("*."), -len(match.host), -len(match.path)), s)
        for s in services
        for match in s.config.match
        if _is_host(host, match) and _is_below(request.target, match.path)
    ]
    return min(found, key=lambda f: f[0])[1] if found else None


def _is_host(host: str, match: Match) -> bool:
    wanted = match.host.lower()
    if wanted == "*":
        return True
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) > len(wanted[1:])
    return host == wanted


def _is_below(target: str, path: str) -> bool:
    own = target.partition("?")[0]
    return own == path or own.startswith(path if path.endswith("/") else path + "/")


# -- what it asks for ---------------------------------------------------------------------------------------------


def asked(request: Request, config: ServiceConfig) -> Asked:
    pin = config.pin
    header = request.first(pin.header) or None
    pairs = [p.partition("=") for p in request.target.partition("?")[2].split("&")]
    queries = tuple(value for name, _, value in pairs if name == pin.query and value)
    raw = _cookie(request, pin.cookie)
    return Asked(
        header=header,
        queries=queries,
        raw_cookie=raw,
        cookie=parsed(raw),
        document=_is_document(request, pinned=bool(header or queries)),
        immutable=any(request.target.startswith(p) for p in config.immutable),
    )


def _is_document(request: Request, *, pinned: bool) -> bool:
    if request.method not in SAFE:
        return False
    destination = request.first("Sec-Fetch-Dest")
    if destination is not None:
        return destination in ("document", "iframe")
    fetched = any(request.first(name) is not None for name in ("Sec-Fetch-Mode", "Sec-Fetch-Site"))
    html = "text/html" in (request.first("Accept") or "").lower()
    return html and not fetched and not pinned and request.first("X-Requested-With") is None


def _cookie(request: Request, name: str) -> str | None:
    for part in "; ".join(request.all("Cookie")).split(";"):
        key, equals, value = part.lstrip().partition("=")
        if equals and key == name:
            return value.strip() or None
    return None


def parsed(raw: str | None) -> Cookie | None:
    """``generation.version.bucket``; a version may hold dots itself."""
    first, _, rest = (raw or "").partition(".")
    version, _, last = rest.rpartition(".")
    if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,4}", last):
        return None
    try:
        return Cookie(int(first), build_name(version), int(last), (first, version, last))
    except BadName:
        return None


# -- which version ------------------------------------------------------------------------------------------------


def choose(service: Service, ask: Asked, drawn: int) -> Choice:
    """The table itself, then what cannot be had here. ``drawn``: the bucket of a client that has none yet."""
    choice = _table(service, ask, drawn)
    default = service.plan.default
    assert default is not None
    gone = choice.version not in service.healthy and default in service.healthy
    if gone and choice.version != default and choice.verdict != "preview" and not choice.conflict:
        return Choice(default, "retired", "forced", choice.version, "gone")
    return choice


def _table(service: Service, ask: Asked, drawn: int) -> Choice:
    plan = service.plan
    previews = {p.token: p for p in plan.previews}
    # Of several parameters the first that names anything counts; if none does, the first.
    query = next((q for q in ask.queries if q in plan.serving or q in previews), next(iter(ask.queries), None))
    pins = [p for p in (ask.header, query) if p]
    if token := next((p for p in pins if p in previews), None):
        return _preview(previews[token])
    if version := next((p for p in pins if p in plan.serving), None):
        return _exact(plan, version)
    if ask.raw_cookie in previews and (not pins or previews[ask.raw_cookie].version in pins):
        return _preview(previews[ask.raw_cookie])
    if pins:
        conflict = service.config.pin.retired == "conflict" and not ask.document and not ask.immutable
        return replace(_forced(service, pins[0]), conflict=conflict)
    if ask.document:
        return _document(service, ask.cookie, drawn)
    if ask.cookie and ask.cookie.version in plan.serving:
        return _exact(plan, ask.cookie.version)
    if ask.raw_cookie:
        return _forced(service, ask.cookie.version if ask.cookie else None)
    return _default(plan)


def _document(service: Service, cookie: Cookie | None, drawn: int) -> Choice:
    plan = service.plan
    bucket = cookie.bucket if cookie else drawn
    fresh = _default(plan)
    if plan.ramp and bucket < plan.ramp.percent * BUCKETS // 100:
        fresh = Choice(plan.ramp.version, _verdict(plan, plan.ramp.version), "ramp")
    if cookie is None or cookie.generation <= plan.generation:
        return fresh
    if cookie.version in plan.serving:
        return replace(_exact(plan, cookie.version), cause="newer")
    origin = cookie.version if cookie.version in service.known else "unknown"
    return replace(fresh, outcome="back", origin=origin, cause="generation")


def _verdict(plan: Plan, version: str) -> str:
    if version == plan.default:
        return "current"
    return "ramp" if plan.ramp and plan.ramp.version == version else "previous"


def _default(plan: Plan) -> Choice:
    assert plan.default is not None
    return Choice(plan.default, "current", "default")


def _exact(plan: Plan, version: str) -> Choice:
    return Choice(version, _verdict(plan, version), "exact", version)


def _preview(preview: Preview) -> Choice:
    return Choice(preview.version, "preview", "preview", token=preview.token)


def _forced(service: Service, pin: str | None) -> Choice:
    default = _default(service.plan).version
    if pin in service.known:
        return Choice(default, "retired", "forced", str(pin), "retired")
    return Choice(default, "retired", "forced", "unknown", "unknown")


# -- the answer ---------------------------------------------------------------------------------------------------


def answer(request: Request, services: Sequence[Service], drawn: int, stamp: str | None = None) -> Answer:
    """What comes back. ``stamp``: which version's host answered, for services whose pool is mixed."""
    if (status := spoken(request)) is not None:
        return Answer(status)
    if re.match(r"/\.pinrail(/|\?|$)", request.target):
        return Answer(200 if re.match(r"/\.pinrail/health(\?|$)", request.target) else 404)
    service = belongs(request, services)
    if service is None:
        return Answer(404)
    ask = asked(request, service.config)
    if service.plan.mode == "mixed":
        return _mixed(request, service, ask, stamp)
    if service.plan.default is None:
        return Answer(503, verdict="none", vary=not ask.immutable, record=Record("-", "none", "-", "-", ask.document))
    return _pinned(request, service, ask, drawn)


def spoken(request: Request) -> int | None:
    """What any server says to a request that is not HTTP; None where it is."""
    hosts = request.all("Host") if request.target == request.written else ()
    if len(hosts) > 1 or (not request.authority and request.protocol == "HTTP/1.1"):
        return 400
    return None


def refused(request: Request, config: ServiceConfig) -> int | None:
    """The edge's own no, to what no host should get."""
    if request.method not in METHODS:
        return 405
    if len(request.body) > config.body_bytes:
        return 413
    return None


def _pinned(request: Request, service: Service, ask: Asked, drawn: int) -> Answer:
    choice = choose(service, ask, drawn)
    status = 409 if choice.conflict else refused(request, service.config)
    build: str | None = None
    if status is None:
        status, build, choice = _fetched(request, service, ask, choice)
    cookie = None
    if ask.document and status < 500:
        cookie = _set(service.plan, ask, choice)
    document = ask.document
    return Answer(
        status=status,
        version=choice.version,
        verdict=choice.verdict,
        build=build,
        cookie=None if cookie == ask.raw_cookie else cookie,
        vary=not ask.immutable,
        record=Record(choice.version, choice.outcome, choice.origin, choice.cause, document),
    )


def _fetched(request: Request, service: Service, ask: Asked, choice: Choice) -> tuple[int, str | None, Choice]:
    """Who answers in the end: an asset is looked for everywhere; else the chosen version, and for safe methods the
    default after it."""
    plan, safe = service.plan, request.method in SAFE
    well = choice.version in service.healthy
    if ask.immutable and safe:
        said = [(v, request.status_at(v) if v in service.healthy else 503) for v in _lookup(plan, choice.version)]
        found = next((v for v, status in said if status != 404 and status < 500), None)
        if found:
            return request.status_at(found), found, choice
        return (404 if any(status == 404 for _, status in said) else said[-1][1]), None, choice
    if well:
        return request.status_at(choice.version), choice.version, choice
    gone = plan.default not in service.healthy and choice.version != plan.default and choice.verdict != "preview"
    if gone and safe:
        assert plan.default is not None
        choice = Choice(plan.default, "retired", "forced", choice.version, "gone")
    return 503, None, choice


def _lookup(plan: Plan, chosen: str) -> tuple[str, ...]:
    """Where an asset is looked for, one after the other."""
    return tuple(dict.fromkeys((chosen, *plan.serving)))


def _set(plan: Plan, ask: Asked, choice: Choice) -> str:
    """A cookie's generation falls only with the page itself."""
    if choice.token:
        return choice.token
    generation, bucket = str(plan.generation), DRAWN
    if ask.cookie:
        bucket = ask.cookie.words[2]
        if ask.cookie.generation > plan.generation and choice.outcome == "exact":
            generation = ask.cookie.words[0]
    return f"{generation}.{choice.version}.{bucket}"


def _mixed(request: Request, service: Service, ask: Asked, stamp: str | None) -> Answer:
    """One pool; pins are only counted, and which version answered is known from its stamp."""
    vary = not ask.immutable
    status = refused(request, service.config) or (503 if stamp is None else None)
    if status is not None or stamp is None:
        return Answer(status or 503, verdict="none", vary=vary, record=Record("-", "error", "-", "-", ask.document))
    pin = ask.header or next((q for q in ask.queries if q in service.plan.serving), next(iter(ask.queries), None))
    if pin is None:
        record = Record(stamp, "default", "-", "-", ask.document)
    elif pin == stamp:
        record = Record(stamp, "exact", stamp, "-", ask.document)
    else:
        origin = pin if pin in service.known else "unknown"
        record = Record(stamp, "fault", origin, "mixed", ask.document)
    verdict = "current" if stamp == service.plan.default else "previous"
    return Answer(request.status_at(stamp), stamp, verdict, stamp, vary=vary, record=record)
