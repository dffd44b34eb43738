"""The edge agent: plans and server sets in, what Varnish does out, and an acknowledgement of what it really does.

One cycle: read the fleet, settle which members to believe, render, then step by step what ``edge.plan`` says, looking
at Varnish before and after each step, and last write down what was confirmed. While ZooKeeper is away nothing changes.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from edge import members, plan, render, server
from edge.config import EdgeConfig
from edge.lastgood import Good, LastGood, Store
from edge.look import Look
from edge.members import Accepted, Sets
from edge.metrics import Metrics
from edge.plan import Discard, Label, Load, Memory, Use, Want
from edge.render import Rendered
from edge.varnish import Refused, Varnish, VarnishTrouble
from edge.view import Seen, View
from fleet import log, paths
from fleet.loop import Trouble
from fleet.model import Ack, EdgeInfo, Plan, ServiceConfig
from fleet.zk import Conflict, ZooKeeper, ZooKeeperTrouble

_log = log.get()

#: Member changes are taken together: this long after the first, and not more often than every so many seconds.
SETTLE, INTERVAL = 0.3, 1.0
#: A VCL that did not compile is tried again after so many seconds (a compiler may have been killed).
AGAIN = 30.0
NOT_ROSTERED = "not on the roster yet"
#: Steps in one cycle; far more than any plan needs.
_ROUNDS = 200


@dataclass
class Service:
    """What the agent knows of one service between two cycles."""

    config: ServiceConfig
    plan: Plan
    sets: Sets
    #: Members before ``sets``, until the VCLs with the new ones are ready.
    before: Sets | None = None
    held: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    changed_at: float | None = None
    #: Members that have left and are still in what Varnish uses: (version, endpoint).
    left: frozenset[tuple[str, str]] = frozenset()
    taken_at: float = float("-inf")


def _endpoints(sets: Sets) -> frozenset[tuple[str, str]]:
    return frozenset((v, h.endpoint) for v, hosts in sets.items() for h in hosts)


class Agent:
    def __init__(
        self,
        config: EdgeConfig,
        zk: ZooKeeper,
        varnish: Varnish,
        metrics: Metrics,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._zk = zk
        self._view = View(zk)
        self._varnish = varnish
        self._metrics = metrics
        self._wake = wake
        self._clock = clock
        self._start_id = secrets.token_hex(4)
        self._store = Store(config)
        self._services: dict[str, Service] = {}
        self._refused: dict[str, tuple[str, float]] = {}
        self._ready: set[str] = set()
        self._since: dict[str, float] = {}
        self._processes: tuple[int, int | None] = (0, None)
        self._incarnation = ""
        self._health: dict[str, dict[str, str]] = {}
        self._renderings: dict[str, tuple[object, Want]] = {}
        self._confirmed_at = clock()
        self._revisit: float | None = None
        self._timer: threading.Timer | None = None
        self._drains: dict[str, float] = {}
        self._marked: set[tuple[str, str]] = set()
        self._started = False
        #: Root VCL -> the services it hands over to.
        self._roots: dict[str, frozenset[str]] = {}
        self._info = EdgeInfo(name=config.name, engine=config.engine, url=config.url, metrics=config.metrics).encode()
        metrics.age(lambda: clock() - self._confirmed_at)
        for name, good in self._store.read().services.items():
            self._services[name] = Service(good.config, good.plan, good.sets, epochs=dict(good.epochs))

    def known_versions(self) -> dict[str, frozenset[str]]:
        """Service -> versions that may be named in a metric."""
        return {name: frozenset((*members.wanted(s.plan), *s.plan.retired)) for name, s in list(self._services.items())}

    # -- one cycle --

    def cycle(self) -> str:
        self._revisit = None
        try:
            rostered = self._register()
            self._take(self._read())
        except ZooKeeperTrouble as e:
            raise ZooKeeperTrouble(f"{e}; {self._serving()} as before") from e
        wants = [self._want(name, s) for name, s in sorted(self._services.items())]
        try:
            look = self._converge(wants, rostered)
        except VarnishTrouble as e:
            self._acknowledge_nothing(wants, str(e))
            raise
        self._remember(wants, look)
        if not rostered and all(plan.applied(w, look) for w in wants):
            self._join()
        self._schedule()
        return self._sentence(wants, look)

    # -- observe --

    def _read(self) -> dict[str, Seen]:
        """Every service. A plan older than the one that is known comes from a server that lags behind: ask it to catch
        up first. If it is older still, someone has really put it back."""
        seen = self._view.services()
        back = [n for n, s in seen.items() if s.plan and n in self._services and self._is_older(n, s.plan)]
        if back:
            self._zk.sync(paths.SERVICES)
            seen = self._view.services()
        return seen

    def _is_older(self, name: str, seen: Plan) -> bool:
        return seen.epoch < self._services[name].plan.epoch

    def _register(self) -> bool:
        """Say that this edge lives; whether barriers wait for it."""
        if not self._started:
            self._zk.start()
            self._started = True
        try:
            self._zk.hold_ephemeral(paths.edge(self._config.name), self._info)
        except Conflict as e:
            raise ZooKeeperTrouble(f"another session holds {paths.edge(self._config.name)}: {e}") from e
        return self._zk.get(paths.rostered(self._config.name)) is not None

    def _join(self) -> None:
        """Only after the latest plans are applied; the page turns green in the next cycle, with plans read since."""
        with contextlib.suppress(Conflict):
            self._zk.create(paths.rostered(self._config.name), self._info)
        self._again(0.0)

    def _take(self, seen: dict[str, Seen]) -> None:
        """Adopt what ZooKeeper says, as far as it can be believed."""
        gone = set(self._services) - set(seen)
        for name in gone & self._view.removed() if gone else ():
            del self._services[name]
        for name in gone & self._services.keys():
            self._services[name].fault = f"{name} vanished from ZooKeeper and nobody removed it: kept as it was"
        for name, s in seen.items():
            self._take_one(name, s)

    def _take_one(self, name: str, seen: Seen) -> None:
        known = self._services.get(name)
        if seen.plan is None or seen.config is None:
            if known:
                known.fault = seen.fault or f"{name} has no plan any more: kept the last good one"
            elif seen.fault is None and seen.config is not None:
                self._services[name] = Service(seen.config, Plan(), {})
            return
        if known is None:
            accepted = members.accept({}, seen.sets, seen.plan)
            self._services[name] = Service(seen.config, seen.plan, accepted.sets, fault=seen.fault)
            return
        known.fault = seen.fault
        known.config = seen.config
        if self._is_older(name, seen.plan):
            _log.warning("a plan went back", service=name, known=known.plan.epoch, seen=seen.plan.epoch)
            known.epochs = {}
        others = members.wanted(seen.plan) != members.wanted(known.plan) or seen.plan.mode != known.plan.mode
        known.plan = seen.plan
        self._take_members(name, known, members.accept(known.sets, seen.sets, seen.plan), others)

    def _take_members(self, name: str, s: Service, accepted: Accepted, at_once: bool) -> None:
        if accepted.held != s.held:
            for sentence in accepted.held.values():
                _log.warning("a server set shrank beyond belief", service=name, what=sentence)
            s.held = accepted.held
            self._metrics.held(name, s.held)
        if dict(accepted.sets) == dict(s.sets):
            s.changed_at, s.left = None, frozenset()
            return
        now = self._clock()
        if s.changed_at is None:
            s.changed_at = now
        s.left = _endpoints(s.sets) - _endpoints(accepted.sets)
        due = max(s.changed_at + SETTLE, s.taken_at + INTERVAL)
        if not at_once and now < due:
            self._again(due - now)
            return
        s.before = None if at_once else (s.before or s.sets)
        s.sets, s.changed_at, s.taken_at = accepted.sets, None, now

    # -- plan --

    def _want(self, name: str, s: Service) -> Want:
        key = (s.plan, s.config, s.sets, s.before)
        cached = self._renderings.get(name)
        if cached and cached[0] == key:
            return cached[1]
        began = self._clock()
        choices = [s.sets, *([s.before] if s.before is not None else [])]
        current = tuple(render.service(name, s.config, s.plan, c) for c in choices)
        staged: tuple[Rendered, ...] = ()
        if s.plan.staged:
            staged = tuple(render.service(name, s.config, s.plan.committed(), c) for c in choices)
        self._metrics.load("render", self._clock() - began)
        want = Want(name, s.plan.epoch, s.config.match, current, staged)
        for r in (*current, *staged):
            s.epochs[r.name] = max(s.plan.epoch, s.epochs.get(r.name, 0))
        self._renderings[name] = (key, want)
        return want

    def _memory(self) -> Memory:
        epochs: dict[str, int] = {}
        for s in self._services.values():
            epochs |= s.epochs
        now = self._clock()
        self._refused = {n: (text, at) for n, (text, at) in self._refused.items() if now < at + AGAIN}
        return Memory(epochs, frozenset(self._ready), {n: text for n, (text, _) in self._refused.items()})

    # -- apply, confirm, report --

    def _converge(self, wants: list[Want], rostered: bool) -> Look:
        """Do what there is to do, looking before each step. Acknowledges after commits, and at the end."""
        acked = False
        for _ in range(_ROUNDS):
            look = self._look(wants)
            self._mark(wants)
            why_red = NOT_ROSTERED if not rostered else None
            why_red = plan.red(wants, look, rostered=rostered, dead=self._dead(wants, look)) or why_red
            self._know_roots(wants, look, why_red)
            step = plan.decide(wants, look, self._memory(), why_red)
            if not step.actions:
                self._acknowledge(wants, look)
                if step.waiting:
                    self._again(0.05)
                return look
            if not acked and not isinstance(step.actions[0], Label):
                # Before anything that takes time: say what has been committed.
                self._acknowledge(wants, look)
                acked = True
            for action in step.actions:
                self._do(action)
        raise VarnishTrouble(f"Varnish did not take shape in {_ROUNDS} steps; it will be tried again")

    def _mark(self, wants: list[Want]) -> None:
        """A member that left gets no new request from now on; the compile without it follows in its time."""
        for w in wants:
            left = self._services[w.service].left
            for r in (*w.current, *w.staged):
                for backend, at in r.backends.items() if r.name in self._health else ():
                    marked = (r.name, backend) in self._marked
                    if (at in left) != marked:
                        self._told(partial(self._varnish.mark, r.name, backend, "auto" if marked else "sick"))
                        self._marked ^= {(r.name, backend)}

    def _know_roots(self, wants: list[Want], look: Look, why_red: str | None) -> None:
        """Which root is active matters for an ack, not its colour; after a restart it may be an earlier one of ours."""
        routes = plan.routes(wants, look)
        for reason in (why_red, None, server.NOT_YET, NOT_ROSTERED):
            self._roots[render.root(routes, reason).name] = frozenset(r.service for r in routes)

    def _do(self, action: plan.Action) -> None:
        began = self._clock()
        match action:
            case Load(vcl, _):
                try:
                    self._varnish.load(vcl.name, vcl.text)
                except Refused as e:
                    self._refused[vcl.name] = (e.text.strip(), self._clock())
                    _log.error("Varnish refused a VCL; the last good one serves on", vcl=vcl.name, error=e.text.strip())
                    return
                self._metrics.load("compile", self._clock() - began)
                _log.info("loaded", vcl=vcl.name, seconds=f"{self._clock() - began:.3f}")
            case Label(label, name):
                self._told(lambda: self._varnish.label(label, name))
                self._metrics.load("switch", self._clock() - began)
                _log.info("committed", label=label, vcl=name)
            case Use(name):
                if name not in self._refused:
                    self._told(lambda: self._varnish.use(name))
            case Discard(name):
                self._told(lambda: self._varnish.discard(name))
                self._drains.setdefault(name, began)

    @staticmethod
    def _told(order: Callable[[], None]) -> None:
        """A refusal here means that Varnish is not as it looked a moment ago: look again."""
        try:
            order()
        except Refused as e:
            raise VarnishTrouble(f"varnishd refused {e}") from e

    def _look(self, wants: list[Want]) -> Look:
        look = self._varnish.look()
        if (look.manager, look.child) != self._processes:
            self._new_processes(look)
        if look.child is None:
            raise VarnishTrouble("varnishd runs, but its child does not")
        points = set(plan.targets(look).values())
        have = plan.loaded(look)
        now = self._clock()
        self._since = {n: self._since.get(n, now) for n in have}
        self._ready &= set(have)
        self._ready |= points & set(have)
        self._health = {}
        for w in wants:
            window = render.probe_timeout(self._services[w.service].config) + 0.2
            for r in dict.fromkeys((*w.current[:1], *w.staged[:1], *(c for c in w.current if c.name in points))):
                if r.name not in have:
                    continue
                health = self._health[r.name] = self._varnish.health(r.name)
                good = all(health.get(b) == "healthy" for b in r.backends)
                if r.name not in self._ready and (good or now - self._since[r.name] >= window):
                    self._ready.add(r.name)
                    self._metrics.load("probe", now - self._since[r.name])
        self._marked = {(vcl, b) for vcl, b in self._marked if vcl in have}
        left = {v.name for v in look.vcls}
        for name in [n for n in self._drains if n not in left]:
            self._metrics.load("drain", now - self._drains.pop(name))
        return look

    def _new_processes(self, look: Look) -> None:
        """Another manager or child: nothing that was known of health holds any more, and earlier acks are void."""
        self._ready, self._since, self._drains, self._marked = set(), {}, {}, set()
        self._incarnation = f"{self._start_id}/{look.manager}@{self._varnish.started(look.manager)}/{look.child}"
        panic = self._varnish.panic()
        self._processes = (look.manager, look.child)
        _log.info("Varnish", manager=look.manager, child=look.child, **({"panic": panic} if panic else {}))

    def _counts(self, w: Want, look: Look) -> tuple[dict[str, int], dict[str, int]]:
        """Members and healthy ones per version, seen by the staged VCL once it has probed, else by the current one."""
        choices = (*w.staged[:1], *w.current[:1], *self._pointed(w, look))
        seen = next((r for r in choices if r.name in self._health and r.name in self._ready), None)
        versions = members.wanted(self._services[w.service].plan)
        total, good = dict.fromkeys(versions, 0), dict.fromkeys(versions, 0)
        for version, _ in (w.current[0].backends or {}).values():
            total[version] = total.get(version, 0) + 1
        for backend, (version, _) in (seen.backends if seen else {}).items():
            if seen and self._health[seen.name].get(backend) == "healthy":
                good[version] = good.get(version, 0) + 1
        return total, good

    def _dead(self, wants: list[Want], look: Look) -> frozenset[str]:
        """Services that have a default and no healthy host for it, by what new requests really use."""
        found = set()
        for w in wants:
            s = self._services[w.service]
            for r in self._pointed(w, look):
                health = self._health.get(r.name, {})
                serving = [b for b, (v, _) in r.backends.items() if s.plan.mode == "mixed" or v == s.plan.default]
                if s.plan.default and not any(health.get(b) == "healthy" for b in serving):
                    found.add(w.service)
        return frozenset(found)

    @staticmethod
    def _pointed(w: Want, look: Look) -> list[Rendered]:
        """The rendering that new requests use; none while they use one of an older plan."""
        points = plan.targets(look).get(render.label(w.service))
        return [r for r in w.current if r.name == points]

    def _acknowledge(self, wants: list[Want], look: Look) -> None:
        memory = self._memory()
        routed = self._roots.get(plan.active(look) or "", frozenset())
        for w in wants:
            s = self._services[w.service]
            total, good = self._counts(w, look)
            refused = next((self._refused[r.name][0] for r in (*w.current, *w.staged) if r.name in self._refused), None)
            error = refused or s.fault
            ack = plan.ack(
                w,
                look,
                memory,
                incarnation=self._incarnation,
                routed=w.service in routed,
                ack_of=Ack(incarnation="", healthy=good, members=total, error=error[:4000] if error else None),
            )
            self._write_ack(w.service, ack)
            self._metrics.epoch(w.service, ack.applied)
            self._metrics.backends(w.service, total, good)
            if ack.drained < w.epoch or any(good[v] < n for v, n in total.items()):
                self._again(0.25)

    def _acknowledge_nothing(self, wants: list[Want], error: str) -> None:
        """Varnish is away or not itself: whatever was said before no longer holds."""
        for w in wants:
            self._write_ack(w.service, Ack(incarnation=f"{self._start_id}/none", error=error))
            self._metrics.epoch(w.service, 0)

    def _write_ack(self, service: str, ack: Ack) -> None:
        try:
            self._zk.hold_ephemeral(paths.ack(service, self._config.name), ack.encode())
        except Conflict as e:
            raise ZooKeeperTrouble(f"the ack of {service} was changed by someone else: {e}") from e

    def _remember(self, wants: list[Want], look: Look) -> None:
        """What is confirmed becomes what a restart begins with; older renderings of settled services are forgotten."""
        memory = self._memory()
        good: dict[str, Good] = {}
        boot: dict[str, Rendered] = {}
        left = {v.name for v in look.vcls}
        for w in wants:
            s = self._services[w.service]
            if not plan.applied(w, look):
                return
            target = plan.targets(look)[render.label(w.service)]
            boot[w.service] = next(r for r in w.current if r.name == target)
            names = {r.name for r in (*w.current, *w.staged)}
            s.epochs = {n: e for n, e in s.epochs.items() if n in names or n in left}
            if plan.settled(w, look, memory):
                s.before = None
            good[w.service] = Good(plan=s.plan, config=s.config, sets=dict(s.sets), epochs=s.epochs)
        self._confirmed_at = self._clock()
        try:
            if self._store.write(LastGood(services=good), boot, plan.routes(wants, look)):
                _log.info("last good set written", services=len(good))
        except OSError as e:
            raise Trouble(f"the last good set could not be written to {self._config.directory}: {e.strerror}") from e

    # -- words and waiting --

    def _again(self, seconds: float) -> None:
        self._revisit = seconds if self._revisit is None else min(self._revisit, seconds)

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._revisit is not None:
            self._timer = threading.Timer(self._revisit, self._wake)
            self._timer.daemon = True
            self._timer.start()

    def _serving(self) -> str:
        return "serving " + (", ".join(sorted(self._services)) or "nothing")

    def _sentence(self, wants: list[Want], look: Look) -> str:
        parts = []
        for w in wants:
            s = self._services[w.service]
            total, good = self._counts(w, look)
            state = "applied" if plan.applied(w, look) else "not applied"
            hosts = ", ".join(f"{v} {good[v]}/{n}" for v, n in total.items()) or "no version"
            parts.append(f"{w.service}: epoch {w.epoch} {state}, default {s.plan.default}, healthy {hosts}")
            if s.fault:
                parts[-1] += f" ({s.fault})"
        return "; ".join(parts) or "no services yet"
