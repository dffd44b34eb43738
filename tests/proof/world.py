"""Everything together: two replicas, edges, hosts, clients, an operator; and a clock that only the world moves.

Each part has a clock of its own, days away from the others'. ``round`` is a moment in which nothing unusual happens;
``heal`` takes all that is wrong away; ``settle`` is the promise that everything then comes to its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from barrier.controller import Controller
from barrier.metrics import Metrics
from barrier.plans import PlanError
from barrier.store import Refused, Store, previews, rollouts, roster, services, steps, verdicts
from barrier.store.audit import By
from barrier.store.verdicts import Verdict
from fleet import paths
from fleet.loop import Trouble
from fleet.model import Enabled, HostStatus, Plan, Rollout, RolloutState, ServiceConfig, decode
from fleet.zk import Op
from tests.proof.clients import Client
from tests.proof.edges import SERVICE, Edge
from tests.proof.hosts import Host
from tests.proof.promises import Promises, holds
from tests.proof.zookeeper import Change, Faults, Killed, Part, Server, Session, Tree

ANN = By("ann", "admin", "")
DIGEST = "sha256:" + "0" * 64
Verb = Literal["pause", "resume", "abort", "rollback"]


class Replica(Part):
    """One barrier service's controller."""

    def __init__(self, server: Server, name: str, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        super().__init__(server, name, "barrier")
        self._clock = clock
        self._wall = wall
        self._controller: Controller | None = None
        self._metrics = Metrics()
        self.said = ""

    def cycle(self) -> None:
        if self._controller is None:
            self._controller = Controller(
                self.connect(), self.name, self._metrics, lambda: None, monotonic=self._clock, wall=self._wall
            )
        try:
            self.said = self._controller.cycle()
        except Trouble as e:
            self.said = str(e)
        except Killed:
            self.kill()

    def kill(self) -> None:
        self._controller = None


class World:
    def __init__(
        self,
        config: ServiceConfig | None = None,
        *,
        edges: Sequence[str] = ("edge-1", "edge-2"),
        hosts: Sequence[str] = ("host-1", "host-2", "host-3"),
    ) -> None:
        self.config = config or ServiceConfig.model_validate({"waves": {"concurrency": 1}})
        self.now = 0.0
        self.server = Server()
        self.replicas: dict[str, Replica] = {}
        for i, name in enumerate(("barrier-1", "barrier-2")):
            # Monotonic clocks begin anywhere; wall clocks are days apart, and one of them runs backwards.
            self.replicas[name] = Replica(
                self.server, name, self._clock(1000.0 * i), lambda i=i: 1e6 * i + (1 - 2 * i) * self.now
            )
        self.edges: dict[str, Edge] = {}
        self.machines: dict[str, Host] = {}
        self.clients = [Client(bucket=b) for b in (0, 500, 4999, 9999)]
        self.promises = Promises(self)
        self.server.watchers += [self.promises.written, self._evicted]
        self._api = Session(self.server, "api", "barrier")
        self.store = Store(self._api)
        self.last = 0
        services.configure(self.store, SERVICE, self.config, ANN)
        for name in edges:
            self.add_edge(name)
        for name in hosts:
            self.add_host(name)

    def _clock(self, offset: float) -> Callable[[], float]:
        return lambda: self.now + offset

    def _evicted(self, session: Session, ops: Sequence[Op], changes: Sequence[Change]) -> None:
        """By the stall policy, which is for load balancers that notice by themselves that an edge's agent is gone."""
        for c in changes:
            if session.name in self.replicas and c.path.startswith(f"{paths.ROSTER}/") and c.after is None:
                self._take_out(c.path.rpartition("/")[2])

    def _take_out(self, name: str) -> None:
        self.edges[name].out = True
        self.edges[name].varnish.end()

    def add_edge(self, name: str) -> Edge:
        edge = Edge(self.server, name, lambda e: self.at(e) is not None, self._clock(7.0 * len(self.edges)))
        edge.on_change = self.promises.edge_changed
        self.edges[name] = edge
        return edge

    def add_host(self, name: str) -> Host:
        host = Host(self.server, name)
        host.on_stop, host.on_start = self.promises.host_stops, self.promises.host_starts
        self.machines[name] = host
        return host

    def remove_host(self, name: str) -> None:
        """The machine is gone for good."""
        self.machines.pop(name).expire()

    def said(self) -> str:
        return "; ".join(f"{r.name}: {r.said}" for r in self.replicas.values())

    # -- what is so --

    def parts(self) -> tuple[Part, ...]:
        return (*self.replicas.values(), *self.machines.values(), *self.edges.values())

    def part(self, name: str) -> Part | None:
        return next((p for p in self.parts() if p.name == name), None)

    def at(self, endpoint: str) -> str | None:
        host = next((h for h in self.machines.values() if h.address == endpoint.partition(":")[0]), None)
        return host.at(endpoint) if host else None

    def plan(self) -> Plan:
        stored = self.server.now.get(paths.plan(SERVICE))
        return (decode(Plan, stored.data) if stored else None) or Plan()

    def enabled(self) -> Enabled:
        stored = self.server.now.get(paths.enabled(SERVICE))
        return (decode(Enabled, stored.data) if stored else None) or Enabled()

    def host_status(self, name: str) -> HostStatus | None:
        stored = self.server.now.get(paths.host(SERVICE, name))
        return decode(HostStatus, stored.data) if stored else None

    def rollout_in(self, tree: Tree, number: int | None) -> Rollout | None:
        stored = tree.get(paths.rollout(SERVICE, number)) if number else None
        return decode(Rollout, stored.data) if stored else None

    def rollout(self, number: int | None = None) -> Rollout | None:
        """By default the last one."""
        return self.rollout_in(self.server.now, number or self.last)

    def active(self) -> Rollout | None:
        lock = self.server.now.get(paths.active_rollout(SERVICE))
        return self.rollout(int(lock.data)) if lock else None

    def aborts(self, number: int) -> bool:
        rollout = self.rollout(number)
        return rollout is not None and rollout.state in (RolloutState.ABORTING, RolloutState.ABORTED)

    # -- the operator --

    def deploy(self, build: str, ramp: tuple[int, ...] = (), hold: float | str = 0.0, **fields: object) -> str:
        wanted = Rollout.model_validate(
            {
                "number": 1,
                "service": SERVICE,
                "build": build,
                "digest": DIGEST,
                "by": ANN.name,
                "ramp": ramp,
                "hold": hold,
            }
            | fields
        )

        def begin() -> str:
            rollout, _ = rollouts.begin(self.store, wanted, ANN)
            self.last = rollout.number
            return f"rollout {rollout.number}"

        return self._asked(begin)

    def ask(self, verb: Verb) -> str:
        """Of the active rollout, or of the last one."""
        active = self.active()
        number = active.number if active else self.last
        return self._asked(lambda: rollouts.ask(self.store, SERVICE, number, verb, ANN).state.value)

    def verdict(self, verdict: Verdict, reason: str = "", percent: int | None = None) -> str:
        """On the active rollout, or on the last one."""
        by, active = dataclasses.replace(ANN, reason=reason), self.active()
        number = active.number if active else self.last
        return self._asked(lambda: verdicts.give(self.store, SERVICE, number, verdict, by, percent=percent).state.value)

    def preview(self, version: str, seconds: float) -> str:
        return self._asked(lambda: f"epoch {previews.create(self.store, SERVICE, version, seconds, ANN)[1].epoch}")

    def by_hand(self, operation: str, version: str) -> str:
        return self._asked(lambda: f"epoch {steps.change(self.store, SERVICE, operation, version, ANN).epoch}")

    def evict(self, name: str) -> str:
        """Whoever evicts has taken the edge out of the load balancer, and its requests have ended."""
        self._take_out(name)
        return self._asked(lambda: str(roster.evict(self.store, name, ANN)))

    @staticmethod
    def _asked(what: Callable[[], str]) -> str:
        try:
            return what()
        except (Refused, PlanError, Trouble) as e:
            return str(e)

    # -- time --

    def round(self, seconds: float = 1.0, *, idle: Sequence[str] = ()) -> None:
        """Everybody looks once, but for those who are ``idle``."""
        self.now += seconds
        for part in self.parts():
            if part.name not in idle:
                part.cycle()
                self.check()
        self.browse()

    def browse(self) -> None:
        """Every client asks for something at every edge, and some go to another page."""
        for edge in self.edges.values():
            for client in self.clients:
                self.promises.request(client, edge, document=client.version is None)
        for client in self.clients[::2]:
            for edge in self.edges.values():
                self.promises.request(client, edge, document=True)
        self.check()

    def check(self) -> None:
        for edge in self.edges.values():
            if edge.out and edge.varnish.green and paths.rostered(edge.name) in self.server.now:
                edge.out = not edge.reaches_zookeeper  # whoever took it out sees that it is back, and lets it in again
        self.promises.check()

    def rounds(self, count: int, seconds: float = 1.0, *, idle: Sequence[str] = ()) -> None:
        for _ in range(count):
            self.round(seconds, idle=idle)

    def heal(self) -> None:
        """All faults are over. Who was killed is started again, and the sessions of the dead expire."""
        self.server.up = True
        for part in self.parts():
            part.bury()
            if part.session is not None:
                part.session.faults = Faults()
        for host in self.machines.values():
            host.bad.clear()
        for edge in self.edges.values():
            edge.varnish.probes_stuck, edge.varnish.broken_compiler, edge.kill_in = False, None, None
            edge.varnish.end()

    def quiet(self) -> str | None:
        """What is not as it ends up; None where nothing is left to do."""
        if (rollout := self.active()) is not None:
            return f"rollout {rollout.number} is {rollout.state}: {rollout.history[-1:]}"
        if paths.waiting_rollout(SERVICE) in self.server.now:
            return "a rollout waits to begin"
        plan, enabled = self.plan(), self.enabled()
        for edge in self.edges.values():
            ack = edge.ack()
            if ack is None or (ack.applied, ack.staged, ack.drained) != (plan.epoch,) * 3:
                return f"{edge.name} is at {ack}, the plan at {plan.epoch}: {edge.said}"
            if not edge.takes_traffic and plan.default:
                return f"{edge.name} takes no traffic: {edge.said}"
        for name in self.machines:
            status = self.host_status(name)
            if status is None or status.serial != enabled.serial:
                return f"{name} is at {status}, enabled at {enabled}"
        if turns := [n for n in self.machines if paths.turn(SERVICE, n) in self.server.now]:
            return f"turns are left: {turns}"
        return None

    @staticmethod
    def _waits_for_a_word(rollout: Rollout) -> bool:
        held = rollout.state is RolloutState.RAMPING and isinstance(rollout.hold, str)
        return held or rollout.state is RolloutState.PAUSED

    def settle(self, rounds: int = 120, seconds: float = 1.0) -> None:
        why: str | None = ""
        for _ in range(rounds):
            rollout = self.active()
            if rollout is not None and rollout.request is None and self._waits_for_a_word(rollout):
                self.ask("resume")
            self.round(seconds)
            for part in self.parts():
                part.bury()  # one that was killed has come back in this round: what it held before does not last
            if (why := self.quiet()) is None:
                return
        holds("liveness", False, f"after {rounds} rounds in which nothing went wrong: {why}; {self.said()}")
