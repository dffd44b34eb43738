"""The promises under everything that can go wrong, in any order: hypothesis looks for an order that breaks one.

``PINRAIL_PROOF_EXAMPLES=5000`` searches for longer, ``PINRAIL_PROOF_SEED=7`` elsewhere. A failure prints the rules that
led to it (the fewest with ``PINRAIL_PROOF_SHRINK=1``, which takes minutes); as a scenario it is tried for ever after.
"""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from barrier.store.verdicts import Verdict
from fleet.model import RolloutState, ServiceConfig
from hostagent.work import Check, Fetch, Start
from tests.proof.edges import models
from tests.proof.world import Verb, World

EXAMPLES = int(os.environ.get("PINRAIL_PROOF_EXAMPLES", "60"))
pytestmark = pytest.mark.timeout(120 + 2 * EXAMPLES)  # a search that somebody asked for is not cut off

EDGES = ("edge-1", "edge-2", "edge-3")
HOSTS = ("host-1", "host-2", "host-3")
REPLICAS = ("barrier-1", "barrier-2")
BUILDS = "ABCDE"
#: Names of all that has a session.
PARTS = (*REPLICAS, *EDGES[:2], *HOSTS)

#: What a host says, and when it fails.
BAD = {"no such build in the store": Fetch, "port in use": Start, "it exits with status 1": Check}

verbs = st.sampled_from(["pause", "resume", "abort", "rollback"])


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._models = contextlib.ExitStack()
        self._models.enter_context(models())

    @initialize(
        concurrency=st.integers(1, 3),
        tolerated=st.integers(0, 1),
        strategy=st.sampled_from(["dual", "dual", "dual", "inplace"]),
        busy=st.sampled_from(["refuse", "refuse", "queue"]),
        stalled=st.sampled_from(["wait", "wait", "abort", "evict"]),
        begun=st.integers(0, 2),
    )
    def begin(self, concurrency: int, tolerated: int, strategy: str, busy: str, stalled: str, begun: int) -> None:
        config = {
            "waves": {"concurrency": concurrency, "max_failures": tolerated},
            "strategy": strategy,
            "when_busy": busy,
            "when_stalled": stalled,
            "stall_seconds": 10,
            "give_up_seconds": 30,
        }
        self.world = World(ServiceConfig.model_validate(config), edges=EDGES[:2])
        for build in BUILDS[:begun]:
            self.world.deploy(build)
            self.world.settle()

    # -- time passes --

    @rule(rounds=st.integers(1, 6), idle=st.sets(st.sampled_from(PARTS), max_size=2))
    def time_passes(self, rounds: int, idle: set[str]) -> None:
        self.world.rounds(rounds, idle=sorted(idle))

    @rule(name=st.sampled_from(PARTS), times=st.integers(1, 4))
    def one_looks(self, name: str, times: int) -> None:
        for _ in range(times):
            if part := self.world.part(name):
                part.cycle()
                self.world.check()

    @rule(rounds=st.integers(1, 12))
    def nothing_unusual_happens(self, rounds: int) -> None:
        self.world.rounds(rounds)

    @rule(seconds=st.sampled_from([0.1, 5.0, 40.0, 100.0]))
    def a_long_moment(self, seconds: float) -> None:
        self.world.round(seconds)

    # -- operators --

    @rule(
        build=st.sampled_from(BUILDS),
        ramp=st.sampled_from([(), (), (10,), (1, 50, 100)]),
        hold=st.sampled_from([0.0, 3.0, 60.0, "verdict"]),
    )
    def deploy(self, build: str, ramp: tuple[int, ...], hold: float | str) -> None:
        self.world.deploy(build, ramp if self.world.config.strategy == "dual" else (), hold)

    @rule(verb=verbs)
    def ask(self, verb: Verb) -> None:
        self.world.ask(verb)

    @rule(verdict=st.sampled_from(["pass", "fail", "undecided"]), percent=st.sampled_from([None, 1, 10]))
    def verdict(self, verdict: Verdict, percent: int | None) -> None:
        self.world.verdict(verdict, percent=percent)

    @precondition(lambda self: self.world.config.strategy == "dual")
    @rule(operation=st.sampled_from(["withdraw", "offer", "stage", "default"]), version=st.sampled_from(BUILDS))
    def by_hand(self, operation: str, version: str) -> None:
        self.world.by_hand(operation, version)

    @rule(name=st.sampled_from(EDGES))
    def evict(self, name: str) -> None:
        if name in self.world.edges:
            self.world.evict(name)

    # -- edges, hosts, sessions --

    @rule(
        name=st.sampled_from(EDGES[:2]),
        what=st.sampled_from(
            ["begin", "end", "probes", "compiler", "kill at an order", "child", "varnishd", "machine"]
        ),
        orders=st.integers(0, 5),
    )
    def trouble_at_an_edge(self, name: str, what: str, orders: int) -> None:
        edge = self.world.edges[name]
        varnish = edge.varnish
        match what:
            case "begin":  # requests, one for each version that the edge serves; they last
                if edge.takes_traffic and edge.routing is not None:
                    for version in edge.routing.serving:
                        varnish.begin("shop", version)
            case "end":
                varnish.end()
            case "probes":
                varnish.probes_stuck = not varnish.probes_stuck
            case "compiler":
                varnish.broken_compiler = None if varnish.broken_compiler else "no space left"
            case "kill at an order":
                edge.kill_in = orders
            case "child":
                varnish.restart_child()
            case "varnishd":
                edge.restart_varnish()
            case "machine":
                edge.restart_all()
        self.world.check()

    @rule(
        name=st.sampled_from(HOSTS),
        build=st.sampled_from(BUILDS),
        what=st.sampled_from([*BAD, "pools die"]),
    )
    def trouble_at_a_host(self, name: str, build: str, what: str) -> None:
        host = self.world.machines.get(name)
        if host is None:
            return
        if what == "pools die":
            for pool in host.machine.pools.values():
                pool.live = 0
        elif build in host.bad:
            del host.bad[build]
        else:
            host.bad[build] = (BAD[what], what)

    @rule(what=st.sampled_from(["edge joins", "host joins", "host leaves"]), name=st.sampled_from(HOSTS))
    def the_fleet_changes(self, what: str, name: str) -> None:
        w = self.world
        if what == "edge joins" and EDGES[2] not in w.edges:
            w.add_edge(EDGES[2])
        elif what == "host joins" and "host-4" not in w.machines:
            w.add_host("host-4")
        elif what == "host leaves" and name in w.machines and len(w.machines) > 2:
            w.remove_host(name)

    @rule(
        name=st.sampled_from(PARTS),
        what=st.sampled_from(["kill", "expire", "cut", "mend", "lag", "kill at a write", "lose an answer"]),
        count=st.integers(0, 12),
    )
    def trouble_with_a_session(self, name: str, what: str, count: int) -> None:
        part = self.world.part(name)
        if part is None or part.session is None:
            return
        faults = part.session.faults
        match what:
            case "kill":
                part.kill()
            case "expire":
                part.expire()
            case "cut" | "mend":
                faults.cut = what == "cut"
            case "lag":
                faults.behind = count
            case "kill at a write":
                faults.kill_in = count // 2
            case "lose an answer":
                faults.lose_in = count // 2

    @rule()
    def every_session_expires(self) -> None:
        for name in PARTS:
            self.trouble_with_a_session(name, "expire", 0)

    @rule()
    def zookeeper_goes_and_comes(self) -> None:
        self.world.server.up = not self.world.server.up
        self.world.round()

    @rule(
        name=st.sampled_from(REPLICAS),
        calls=st.integers(0, 60),
        expires=st.booleans(),
        others=st.lists(st.sampled_from((*REPLICAS, *EDGES[:2], *HOSTS)), max_size=12),
        verb=st.one_of(st.none(), verbs),
    )
    def pause_a_replica(self, name: str, calls: int, expires: bool, others: list[str], verb: Verb | None) -> None:
        """It is stopped between two calls, others go on, and then it goes on with what it knew."""
        replica = self.world.replicas[name]
        if replica.session is not None:
            replica.session.faults.pause_in = calls
            replica.session.faults.meanwhile = lambda: self._meanwhile(name, expires, others, verb)
            replica.cycle()
            self.world.check()

    def _meanwhile(self, paused: str, expires: bool, others: list[str], verb: Verb | None) -> None:
        if expires:
            self.world.replicas[paused].expire()
        if verb is not None:
            self.world.ask(verb)
        for name in others:
            if name != paused and (part := self.world.part(name)):
                part.cycle()
                self.world.check()

    # -- in the end --

    def teardown(self) -> None:
        """Liveness: the faults are over, and whatever was begun comes to its end."""
        try:
            if hasattr(self, "world"):
                self.world.heal()
                self.world.settle(seconds=5.0)
                rollout = self.world.rollout()
                assert rollout is None or rollout.state is not RolloutState.FAILED, rollout.history
        finally:
            self._models.close()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if "PINRAIL_PROOF_SHRINK" in os.environ else [Phase.generate],
    report_multiple_bugs=False,
)
if "PINRAIL_PROOF_SEED" in os.environ:
    TestProtocol = seed(int(os.environ["PINRAIL_PROOF_SEED"]))(TestProtocol)  # type: ignore[misc]
