"""From a plan to VCL text. Pure and deterministic: the same routing gives the same text and so the same name.

Only what decides a request is rendered: epoch, staged change, rollout and author are left out, so that the staged text
of a plan is the current text once the plan is committed. ``vcl/`` holds the templates; nothing else computes for them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edge.members import Host, Sets, wanted
from fleet.model import Match, Plan, ServiceConfig
from vcl import environment, escaped
from vcl.own import included

#: Replicas on the ring a director: many for few hosts (even spread), few for many (load time).
_RING = 40_000
#: Hosts of one version up to which a ring picks them.
_RING_HOSTS = 100
#: What the name of each backend begins with: behind all other names, or the compiler would go through thousands of
#: backends for each of those (see ``_hosts``).
_BACKEND = "web_"
#: By whether its hosts are known to be healthy.
_PROBES = ({"name": "pr_health", "known": False}, {"name": "pr_known", "known": True})


@dataclass(frozen=True)
class Hosts:
    """The part of a VCL that says where its backends are, and what it was made of."""

    text: str
    backends: Sequence[Mapping[str, object]]
    values: Mapping[str, object]


@dataclass(frozen=True)
class Rendered:
    """One VCL: its content-hash name, its text, and which version and endpoint each backend in it is."""

    name: str
    text: str
    backends: Mapping[str, tuple[str, str]] = field(hash=False)
    hosts: Hosts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Route:
    """A service behind the root, and what it matches."""

    service: str
    match: tuple[Match, ...]


def label(service: str) -> str:
    return f"svc-{service}"


def prefix(service: str) -> str:
    """What the names of all VCLs of ``service`` begin with. Services have no ``_``, so no other's do."""
    return f"v_{service}_"


def service_of(name: str) -> str:
    """The service that a VCL is of."""
    return name.split("_")[1]


def is_root(name: str) -> bool:
    return name.startswith("root_")


def _named(start: str, text: str) -> str:
    return start + hashlib.sha256(text.encode()).hexdigest()[:16]


def symbol(text: str) -> str:
    """``text`` as part of a VCL symbol, readable, and different for different texts."""
    plain = re.sub(r"[^A-Za-z0-9]", "_", text)
    return plain if plain == text else f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _director(name: str, fetch: str, comment: str, members: Sequence[tuple[str, Host]]) -> dict[str, object]:
    least = min((h.weight for _, h in members), default=1)
    total = sum(h.weight / least for _, h in members)
    return {
        "name": name,
        "fetch": fetch,
        "comment": comment,
        "ring": len(members) <= _RING_HOSTS,
        "replicas": max(20, min(400, int(_RING / total) if total else 400)),
        "members": [{"name": n, "weight": f"{h.weight / least:.3f}"} for n, h in members],
    }


def _hosts(backends: Sequence[Mapping[str, object]], values: Mapping[str, object], known: Collection[str]) -> str:
    """New hosts first, for they are probed in this order; of either kind the last in the alphabet first, for the
    compiler keeps one sorted list of all names and goes through it from its beginning for each that it meets."""
    probes = [p for p in _PROBES if any((b["name"] in known) == p["known"] for b in backends)]
    backwards = sorted(backends, key=lambda b: str(b["name"]).lower(), reverse=True)
    new_first = sorted(backwards, key=lambda b: b["name"] in known)
    return environment.get_template("hosts.vcl.j2").render(
        probes=probes,
        backends=[{**b, "probe": _PROBES[b["name"] in known]["name"]} for b in new_first],
        **values,
    )


def knowing(vcl: Rendered, healthy: Collection[str]) -> str:
    """``vcl`` as varnishd is given it where the backends in ``healthy`` serve already: it need not find that out anew.

    It routes as ``vcl.text`` does and has its name. Varnish probes in the order of declaration: the others are first.
    """
    if vcl.hosts is None or not healthy:
        return vcl.text
    return vcl.text.replace(vcl.hosts.text, _hosts(vcl.hosts.backends, vcl.hosts.values, healthy), 1)


def service(name: str, config: ServiceConfig, plan: Plan, sets: Sets, own: str = "") -> Rendered:
    """The VCL of service ``name`` under ``plan``'s current routing, with ``sets`` as its backends.

    ``own`` is the operator's VCL for this service, to be included in it.
    """
    versions = wanted(plan)
    mixed = plan.mode == "mixed"
    members: dict[str, list[tuple[str, Host]]] = {v: [] for v in versions}
    backends: dict[str, tuple[str, str]] = {}
    shown: list[dict[str, object]] = []
    taken: set[str] = set()
    for v in versions:
        for host in sorted(sets.get(v, ())):
            if mixed and (host.endpoint in taken or v not in plan.serving):
                continue  # one slot restarted in place: the address may still be in the older version's set
            taken.add(host.endpoint)
            backend = f"{_BACKEND}{symbol(v)}__{symbol(host.endpoint)}"
            backends[backend] = (v, host.endpoint)
            members[v].append((backend, host))
            shown.append({"name": backend, "host": host.address, "port": host.port})
    if mixed:
        directors = [_director("d_mixed", "-", "every version served", [m for v in versions for m in members[v]])]
    else:
        directors = [_director(f"d_{symbol(v)}", v, v, members[v]) for v in versions]

    def version(v: str) -> dict[str, object]:
        ramping = plan.ramp is not None and plan.ramp.version == v
        status = "current" if v == plan.default else "ramp" if ramping else "previous"
        return {
            "name": v,
            "status": status if v in plan.serving else "preview",
            "director": f"d_{symbol(v)}",
            "ring": len(members[v]) <= _RING_HOSTS,
        }

    values: dict[str, object] = {
        "path": config.health.path,
        "interval": f"{config.health.interval:.3f}",
        "timeout": f"{probe_timeout(config):.3f}",
        "response_seconds": f"{config.response_seconds:.3f}",
    }
    hosts = Hosts(_hosts(shown, values, ()), shown, values)
    text = environment.get_template("service.vcl.j2").render(
        service=name,
        mode=plan.mode,
        generation=plan.generation,
        default=version(plan.default) if plan.default else None,
        served=[version(v) for v in plan.serving],
        named="|".join(escaped(v) for v in (*plan.serving, *(p.token for p in plan.previews))),
        versions=[version(v) for v in versions],
        known=list(dict.fromkeys((*versions, *plan.retired))),
        ramp={"version": version(plan.ramp.version), "below": plan.ramp.percent * 100} if plan.ramp else None,
        previews=[
            {"token": p.token, "version": {**version(p.version), "status": "preview"}}
            for p in sorted(plan.previews, key=lambda p: p.token)
        ],
        pin=config.pin,
        conflict=config.pin.retired == "conflict",
        immutable=sorted(set(config.immutable)),
        allow_unstamped=config.unstamped == "allow",
        body_bytes=config.body_bytes,
        hosts=hosts.text,
        directors=directors,
        own=included(own) if own.strip() else "",
    )
    return Rendered(_named(prefix(name), text), text, backends, hosts)


def probe_timeout(config: ServiceConfig) -> float:
    """How long a host may take to answer an edge's probe."""
    return max(0.5, min(config.health.interval, 2.0))


def _host(pattern: str) -> str:
    if pattern == "*":
        return ""
    if pattern.startswith("*."):
        return r"[^:]+\." + escaped(pattern[2:].lower())
    return escaped(pattern.lower())


def _path(path: str) -> str:
    """What must match beyond the prefix: ``/app`` is ``/app`` itself and what lies below it, never ``/apple``."""
    return "" if path.endswith("/") else escaped(path) + r"(?:/|\?|$)"


def _precedence(rule: tuple[str, Match]) -> tuple[object, ...]:
    """The more exact first: a host before a wildcard before any; then the longer path."""
    service_name, m = rule
    kind = 2 if m.host == "*" else 1 if m.host.startswith("*.") else 0
    return (kind, -len(m.host), -len(m.path), m.host, m.path, service_name)


def rules(routes: Sequence[Route]) -> list[dict[str, str]]:
    """What is asked of a request's host and path, as regular expressions, in the order in which it is asked."""
    ordered = sorted(((r.service, m) for r in routes for m in r.match), key=_precedence)
    return [{"service": s, "host": _host(m.host), "start": m.path, "path": _path(m.path)} for s, m in ordered]


def root(routes: Sequence[Route], red: str | None) -> Rendered:
    """The VCL that requests enter by. ``red`` is why the health page says 503; None: it says 200."""
    text = environment.get_template("root.vcl.j2").render(
        green=red is None,
        reason=red or "ok",
        routes=rules(routes),
    )
    return Rendered(_named("root_", text), text, {})
