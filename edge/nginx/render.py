"""From plans to an nginx configuration. Pure and deterministic: the same routing gives the same text and name.

A service's current routing and its staged one are rendered together: which of the two is in force is a file that is
there or is not, so that a switch is one instant and needs no reload. A routing's ``key`` is made of what decides a
request, hosts aside; epoch, rollout and author are left out, so a staged routing has the key that it has once it is
committed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge import render
from edge.members import Sets, wanted
from edge.nginx.numbers import above, below
from edge.render import Route
from fleet.model import Match, Plan, Preview, Ramp, ServiceConfig
from nginx import Unprintable, environment, escaped, quoted

__all__ = ["Configuration", "Part", "Place", "Unprintable", "configuration", "part"]

_HEADER = re.compile(r"[A-Za-z0-9-]+")
#: Internal request headers that no client may send to a host; those that Varnish's hosts get, too.
_INTERNAL = ("version", "fetch", "key", "error", "service")
#: Idle connections to a version's hosts that a worker keeps.
_KEEPALIVE = 64


@dataclass(frozen=True)
class Place:
    """Where this nginx lives and listens; the same for all its configurations."""

    directory: str
    listen: str
    admin: str
    workers: int
    files: int
    drain_seconds: int
    user: str | None
    #: The njs module's file, where answers are checked.
    module: str | None = None

    @property
    def flags(self) -> str:
        return f"{self.directory}/flags"


@dataclass(frozen=True)
class Part:
    """One service in a configuration: the keys of what it can route by, and what the templates need of it."""

    service: str
    #: Hash of everything in it, hosts too.
    name: str
    current: str
    staged: str | None
    values: Mapping[str, object]
    #: Version -> endpoints of the hosts that take requests in it.
    hosts: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Configuration:
    name: str
    text: str
    parts: tuple[Part, ...]

    def part(self, service: str) -> Part | None:
        return next((p for p in self.parts if p.service == service), None)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def key(config: ServiceConfig, plan: Plan) -> str:
    """Names a routing: equal for two plans that answer every request alike, given the same hosts."""
    says = plan.model_dump(mode="json", exclude={"epoch", "staged", "updated_by", "rollout"})
    return _hash(json.dumps([says, config.model_dump(mode="json")], sort_keys=True))


def commit_flag(service: str, staged: str) -> str:
    return f"{service}.{staged}"


def closing_flag(name: str) -> str:
    return f"closing.{name}"


def changed_flag(name: str) -> str:
    """Without it, configuration ``name`` looks at none of its other flags."""
    return f"changed.{name}"


def _variable(service: str) -> str:
    # Two underscores end it, so no service's variables can be another's: names of services have none.
    return f"$pr_{service.replace('-', '_')}__"


def _any(names: Sequence[str]) -> str:
    return "|".join(escaped(n) for n in names)


def _upstream(service: str, version: str) -> str:
    # Names of upstreams are compared without regard to case; a hash has only one.
    return f"{service}.{_hash(version)[:12]}"


def _side(
    number: str, default: str, generation: int, ramp: Ramp | None, serving: Mapping[str, bool]
) -> dict[str, object]:
    """One of the two routings. ``serving``: version -> has it healthy hosts?"""
    gone = [v for v, well in serving.items() if not well and v != default and serving[default]]
    return {
        "number": number,
        "gone_re": _any(gone),
        "default": default,
        "generation": generation,
        "newer_re": above(generation),
        "ramp": ramp.version if ramp else None,
        "ramp_re": below(ramp.percent * 100) if ramp else None,
    }


def part(service: str, config: ServiceConfig, plan: Plan, healthy: Sets, place: Place) -> Part:
    """Service ``service`` under ``plan``, its staged change included. ``healthy``: the hosts that take requests.

    Raises Unprintable for a service that nginx cannot express.
    """
    if not _HEADER.fullmatch(config.pin.header):
        raise Unprintable(
            f"nginx cannot read a header named {config.pin.header!r}: use letters, digits and '-' in pin.header"
        )
    versions, variable, mixed = wanted(plan), _variable(service), plan.mode == "mixed"
    served = [v for v in plan.serving if not mixed]
    known = list(dict.fromkeys((*versions, *plan.retired)))
    sides = []
    if plan.default and not mixed:
        serving = {v: bool(healthy.get(v)) for v in plan.serving}
        sides.append(_side("", plan.default, plan.generation, plan.ramp, serving))
        if plan.staged:
            staging = plan.staged
            sides.append(_side("1", staging.default, staging.generation, staging.ramp, serving))
    previews = [] if mixed else sorted(plan.previews, key=lambda p: p.token)
    nexts = served if sides and config.immutable else []
    staged = key(config, plan.committed()) if plan.staged and sides else None
    values: dict[str, object] = {
        "name": service,
        "var": variable,
        "mode": plan.mode,
        "default": plan.default,
        "pin": config.pin,
        "header": "$http_" + config.pin.header.lower().replace("-", "_"),
        "cookie": quoted(config.pin.cookie)[1:-1],
        "conflict": config.pin.retired == "conflict" and bool(sides),
        "sides": sides,
        "newers": [f"{variable}newer{n}" for n in range(len(sides))],
        "news": [f"{variable}new{n}" for n in range(len(sides))],
        "previews": [{"number": n, "token": p.token, "version": p.version} for n, p in enumerate(previews)],
        "served_re": _any(served),
        "retired_re": _any([v for v in known if v not in served]),
        "known_re": _any(known),
        "named_re": _any([*plan.serving, *(p.token for p in previews)]),
        "immutable_re": _any(sorted(set(config.immutable))),
        "nexts": [
            {"version": v, "after": f"{variable}try{n + 1}" if n + 1 < len(nexts) else f"{variable}missed"}
            for n, v in enumerate(nexts)
        ],
        "too_large_re": above(config.body_bytes),
        "body_bytes": config.body_bytes,
        "response_seconds": max(1, round(config.response_seconds)),
        "keepalive": _KEEPALIVE,
        "upstreams": _upstreams(service, plan, versions, healthy),
        "check": ("pinrail.strict" if config.unstamped == "refuse" else "pinrail.lenient")
        if place.module and not mixed
        else None,
        "log": f"{place.directory}/requests.log",
        "committed": f"{place.flags}/{commit_flag(service, staged)}" if staged else None,
        "current": key(config, plan),
    }
    values["plain_re"] = _plain(config)
    values["lanes"] = _lanes(service, plan, previews, serving) if sides else []
    name = _hash(json.dumps(values, sort_keys=True, default=lambda m: m.model_dump()))
    hosts = {v: frozenset(h.endpoint for h in healthy.get(v, ())) for v in versions}
    return Part(service, name, key(config, plan), staged, values | {"part": name, "staged": staged}, hosts)


#: A cookie of ours, but for the version in it.
_COOKIE = r"[0-9]{1,9}\.%s\.[0-9]{1,4}"


def _lanes(
    service: str, plan: Plan, previews: Sequence[Preview], serving: Mapping[str, bool]
) -> list[dict[str, object]]:
    """Kinds of requests of which all is known beforehand but who sent them; every other goes through the table: one
    whose header or cookie names a version, one that names none, a document of this generation, a newcomer's."""
    default, ramp = str(plan.default), plan.ramp.version if plan.ramp else None

    def lane(name: str, version: str, says: str, **more: object) -> dict[str, object]:
        status = "current" if version == default else "ramp" if version == ramp else "previous"
        fixed = {"name": name, "version": version, "says": says, "status": status, "doc": "", "named": False}
        return fixed | {"upstream": _upstream(service, version), "cookie_re": "", "cookie": ""} | more

    # Who asks for a preview's version may ask for the preview. What has no host may be gone.
    plain = [v for v in plan.serving if (serving[v] or v == default) and v not in {p.version for p in previews}]
    lanes = [
        lane(f"exact{n}", v, f"exact {v} -", named=True, cookie_re="=" + _COOKIE % escaped(v))
        for n, v in enumerate(sorted(plain, key=lambda v: v != default))
    ]
    lanes.append(lane("default", default, "default - -"))
    if ramp is None:
        made = f"{plan.generation}.{default}"
        lanes.append(lane("document", default, "default - -", doc="d", cookie_re=rf"d={escaped(made)}\.[0-9]{{1,4}}"))
        lanes.append(lane("newcomer", default, "default - -", doc="d", cookie=made))
    return lanes


def _plain(config: ServiceConfig) -> str:
    """An address that is no asset's and has no parameter of the pin's name, and the protocol."""
    assets = "|".join(escaped(path) for path in sorted(set(config.immutable)))
    unless = f"(?!{assets})" if assets else ""
    return rf"{unless}/(?:[^?& ]++|[?&](?!{escaped(config.pin.query)}=))*+ HTTP/1\.[01]"


def _upstreams(service: str, plan: Plan, versions: Sequence[str], healthy: Sets) -> list[dict[str, object]]:
    def members(of: Sequence[str]) -> list[dict[str, object]]:
        found = {h.endpoint: h for v in reversed(of) for h in healthy.get(v, ())}  # the newest version's word counts
        return [
            {"endpoint": f"[{h.address}]:{h.port}" if ":" in h.address else h.endpoint, "weight": h.weight}
            for h in sorted(found.values())
        ]

    if plan.mode == "mixed":
        pool = members(plan.serving)
        return [{"name": f"{service}.mixed", "version": "", "comment": "every version served", "members": pool}]
    return [{"name": _upstream(service, v), "version": v, "comment": v, "members": members([v])} for v in versions]


def configuration(parts: Sequence[Part], routes: Sequence[Route], place: Place) -> Configuration:
    """All of ``parts`` behind one port. ``routes``: what each matches."""
    template = environment.get_template("edge.conf.j2")
    services = [p.values for p in sorted(parts, key=lambda p: p.service)]

    def text(name: str) -> str:
        return template.render(
            name=name,
            services=services,
            routes=render.rules(routes),
            everywhere=_everywhere(parts, routes),
            hosts=_hosts(parts, routes),
            internal=_INTERNAL,
            any_staged=any(p.staged for p in parts),
            directory=place.directory,
            flags=place.flags,
            listen=place.listen,
            admin=place.admin,
            workers=place.workers,
            files=place.files,
            connections=min(16384, place.files // 2),
            drain_seconds=place.drain_seconds,
            user=place.user,
            module=place.module,
            check=place.module is not None,
        )

    name = _hash(text("-"))
    return Configuration(name, text(name), tuple(parts))


def _everywhere(parts: Sequence[Part], routes: Sequence[Route]) -> str | None:
    """The variable of the one service that every request belongs to, if there is one."""
    if [m for r in routes for m in r.match] != [Match()]:
        return None
    return next((str(p.values["var"]) for p in parts if p.service == routes[0].service), None)


def _hosts(parts: Sequence[Part], routes: Sequence[Route]) -> list[dict[str, str]]:
    """Hosts all of whose paths belong to one service; what asks for them by their plain name is told by that alone."""
    variables = {p.service: str(p.values["var"]) for p in parts}
    found: dict[str, list[tuple[str, str]]] = {}
    for r in routes:
        for m in r.match:
            found.setdefault(m.host.lower(), []).append((m.path, r.service))
    return [
        {"host": host, "var": variables[rules[0][1]]}
        for host, rules in sorted(found.items())
        if "*" not in host and len(rules) == 1 and rules[0][0] == "/" and rules[0][1] in variables
    ]
