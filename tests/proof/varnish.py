"""A varnishd in memory, with the face of ``edge.varnish.Varnish``; and the routing that it would do.

The VCL that it is given is not VCL: ``render`` writes down the decisions of a rendering as JSON, and ``route`` takes
them, as ``vcl/service.vcl.j2`` does (which ``tests/vcl`` tests). ``test_render`` compares the two renderings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edge import render
from edge.look import Look, Vcl
from edge.members import Sets, wanted
from edge.render import Rendered, Route
from edge.varnish import Refused
from fleet.model import Plan, Ramp, ServiceConfig

#: Beyond any process of this machine.
_pids = itertools.count(1 << 30)


@dataclass(frozen=True)
class Routing:
    """What one VCL of a service decides by."""

    mode: str
    generation: int
    default: str | None
    serving: tuple[str, ...]
    ramp: Ramp | None
    #: Version -> endpoints.
    backends: dict[str, tuple[str, ...]]

    def of(self, version: str) -> tuple[str, ...]:
        return self.backends.get(version, ())


def vcl(name: str, config: ServiceConfig, plan: Plan, sets: Sets, own: str = "") -> Rendered:
    """In place of ``edge.render.service``."""
    backends = {v: [h.endpoint for h in sorted(sets.get(v, ()))] for v in wanted(plan)}
    if plan.mode == "mixed":
        taken: set[str] = set()
        for v in backends:
            backends[v] = [e for e in backends[v] if e not in taken and not taken.add(e)]  # type: ignore[func-returns-value]
    text = json.dumps(
        {
            "mode": plan.mode,
            "generation": plan.generation,
            "default": plan.default,
            "serving": plan.serving,
            "ramp": plan.ramp.model_dump() if plan.ramp else None,
            "retired": plan.retired,
            "previews": [p.model_dump() for p in plan.previews],
            "backends": backends,
            "config": config.model_dump(mode="json", include={"pin", "health", "immutable", "unstamped"}),
        },
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    named = {f"web_{v}__{e}": (v, e) for v, es in backends.items() for e in es}
    return Rendered(f"{render.prefix(name)}{digest}", text, named)


def root(routes: Sequence[Route], red: str | None) -> Rendered:
    """In place of ``edge.render.root``."""
    text = json.dumps({"green": red is None, "why": red, "services": sorted(r.service for r in routes)})
    return Rendered(f"root_{hashlib.sha256(text.encode()).hexdigest()[:16]}", text, {})


def _routing(text: str) -> Routing:
    raw = json.loads(text)
    return Routing(
        mode=raw["mode"],
        generation=raw["generation"],
        default=raw["default"],
        serving=tuple(raw["serving"]),
        ramp=Ramp.model_validate(raw["ramp"]) if raw["ramp"] else None,
        backends={v: tuple(es) for v, es in raw["backends"].items()},
    )


@dataclass
class Request:
    """One that is under way, on a version."""

    version: str


@dataclass
class Varnish:
    """``up``: does this backend answer a probe? ``before`` is called with each order, and may not return;
    ``after`` when what new requests use may have changed."""

    up: Callable[[str], bool]
    clock: Callable[[], float]
    before: Callable[[str, str], None] = lambda _what, _name: None
    after: Callable[[], None] = lambda: None
    manager: int = field(default_factory=lambda: next(_pids))
    child: int | None = field(default_factory=lambda: next(_pids))
    #: Probes of fresh VCLs find nothing.
    probes_stuck: bool = False
    #: What the compiler says to any VCL of a service, once it has compiled ``compiles`` more of them.
    broken_compiler: str | None = None
    compiles: int = 0
    vcls: list[Vcl] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    requests: dict[str, list[Request]] = field(default_factory=dict)
    marked: set[tuple[str, str]] = field(default_factory=set)
    _backends: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    _probed: set[str] = field(default_factory=set)

    # -- what users see --

    @property
    def green(self) -> bool:
        name = next((v.name for v in self.vcls if v.status == "active"), None)
        return self.child is not None and name is not None and bool(json.loads(self.texts[name])["green"])

    def used(self, service: str) -> str | None:
        """The VCL that new requests of the service use: by the active root, through the label."""
        name = next((v.name for v in self.vcls if v.status == "active"), None)
        if self.child is None or name is None or service not in json.loads(self.texts[name])["services"]:
            return None
        return next((v.target for v in self.vcls if v.name == render.label(service)), None)

    def route(self, service: str) -> Routing | None:
        target = self.used(service)
        return _routing(self.texts[target]) if target else None

    def staged(self, service: str) -> list[Routing]:
        """What else is loaded and warm."""
        target = self.used(service)
        start = render.prefix(service)
        names = [v.name for v in self.vcls if v.name.startswith(start) and v.status == "available" and v.warm]
        return [_routing(self.texts[n]) for n in names if n != target]

    def begin(self, service: str, version: str) -> None:
        """A request that lasts; it stays with the VCL that it began on."""
        if (target := self.used(service)) is not None:
            self.requests.setdefault(target, []).append(Request(version))

    def end(self) -> None:
        """All requests that are under way end; what waited for them is gone."""
        self.requests.clear()
        self.vcls = [v for v in self.vcls if v.status != "discarded"]

    def under_way(self) -> set[str]:
        return {r.version for rs in self.requests.values() for r in rs}

    # -- what can happen to it --

    def restart_child(self) -> None:
        """The manager loads all again in a new child; no request and no probe survives."""
        self.end()
        self.child = next(_pids)
        self._probed.clear()
        self.marked.clear()

    def boot(self, services: dict[str, Rendered], routes: tuple[Route, ...], red: str) -> None:
        """A new manager, from the boot file."""
        self.__init__(self.up, self.clock, self.before, self.after)  # type: ignore[misc]
        for r in services.values():
            self._add(r.name, r.text)
        for s, r in services.items():
            self.vcls.append(Vcl(render.label(s), "available", "warm", target=r.name))
        first = root(routes, red)
        self._add(first.name, first.text, status="active")

    def _add(self, name: str, text: str, status: str = "available") -> None:
        self.texts[name] = text
        self.vcls.append(Vcl(name, status, "warm"))

    # -- the face of edge.varnish.Varnish --

    def look(self) -> Look:
        vcls = tuple(replace(v, busy=len(self.requests.get(v.name, ()))) for v in self.vcls)
        return Look(self.manager, self.child, vcls if self.child else ())

    def health(self, name: str) -> dict[str, str]:
        if name not in self.texts or name.startswith("root_"):
            return {}
        if not self.probes_stuck:
            self._probed.add(name)
        found = {}
        for version, endpoints in _routing(self.texts[name]).backends.items():
            for e in endpoints:
                good = name in self._probed and self.up(e) and (name, f"web_{version}__{e}") not in self.marked
                found[f"web_{version}__{e}"] = "healthy" if good else "sick"
        return found

    def held_sick(self, name: str) -> frozenset[str]:
        return frozenset(backend for vcl, backend in self.marked if vcl == name)

    def started(self, manager: int) -> str:
        return str(manager)

    def panic(self) -> str | None:
        return None

    def load(self, name: str, text: str) -> None:
        self.before("load", name)
        if self.broken_compiler and name.startswith("v_"):
            self.compiles -= 1
        if self.broken_compiler and name.startswith("v_") and self.compiles < 0:
            raise Refused("vcl.inline", 106, self.broken_compiler)
        if not any(v.name == name and v.status != "discarded" for v in self.vcls):
            self._add(name, text)

    def label(self, label: str, name: str) -> None:
        self.before("label", name)
        self.vcls = [v for v in self.vcls if v.name != label]
        self.vcls.append(Vcl(label, "available", "warm", target=name))
        self.after()

    def use(self, name: str) -> None:
        self.before("use", name)
        was = {v.name for v in self.vcls if v.status == "active"}
        self.vcls = [
            replace(v, status="active" if v.name == name else "available" if v.name in was else v.status)
            for v in self.vcls
        ]
        self.after()

    def mark(self, vcl: str, backend: str, health: str) -> None:
        (self.marked.add if health == "sick" else self.marked.discard)((vcl, backend))

    def discard(self, name: str) -> None:
        self.before("discard", name)
        if any(v.target == name for v in self.vcls) or any(v.name == name and v.status == "active" for v in self.vcls):
            raise Refused("vcl.discard", 300, f"{name} is in use")
        busy = self.requests.get(name)
        self.vcls = [
            replace(v, status="discarded") if v.name == name else v for v in self.vcls if v.name != name or busy
        ]
        self._probed.discard(name)
        self.marked = {(vcl, backend) for vcl, backend in self.marked if vcl != name}

    def close(self) -> None:
        """Nothing to close."""
