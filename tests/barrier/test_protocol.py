"""The protocol against every kind of bad timing: edges that lag, drain slowly, vanish; hosts that fail; operators.

A model in memory, no ZooKeeper: the machine and the turns decide as in the controller, everything else is chance. After
each step the promises are checked; at the end the world behaves, and then the rollout must come to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from barrier import machine, turns
from barrier.predicates import Edges
from barrier.view import Event, View
from fleet.model import (
    Ack,
    Enabled,
    HostStatus,
    Plan,
    Request,
    Rollout,
    RolloutState,
    ServiceConfig,
    Turn,
    Waves,
)

DIGEST = "sha256:" + "0" * 64
EDGES = ("e1", "e2")
HOSTS = ("h1", "h2", "h3")


@dataclass
class Edge:
    #: What new requests are routed by, and what requests are left on.
    plan: Plan = field(default_factory=Plan)
    left: list[Plan] = field(default_factory=list)
    ack: Ack | None = None

    def may_need(self, version: str) -> bool:
        return any(version in p.serving for p in (self.plan, *self.left))


@dataclass
class Host:
    slots: list[str | None] = field(default_factory=lambda: [None, None])
    serial: int = 0
    failed: int = 0


class Protocol(RuleBasedStateMachine):
    @initialize(concurrency=st.integers(1, 3), tolerated=st.integers(0, 1))
    def begin_world(self, concurrency: int, tolerated: int) -> None:
        self.config = ServiceConfig(waves=Waves(concurrency=concurrency, max_failures=tolerated))
        self.plan = Plan(epoch=1)
        self.enabled = Enabled()
        self.rollout: Rollout | None = None
        self.last: Rollout | None = None
        self.number = 0
        self.edges = {e: Edge() for e in EDGES}
        self.hosts = {h: Host() for h in HOSTS}
        self.turns: dict[str, Turn] = {}
        self.bad: set[str] = set()

    # -- the controller --

    def view(self, rollout: Rollout) -> View:
        members = [b for h in self.hosts.values() for b in h.slots if b]
        return View(
            rollout=rollout,
            config=self.config,
            plan=self.plan,
            enabled=self.enabled,
            edges=Edges(EDGES, frozenset(EDGES), {n: e.ack for n, e in self.edges.items() if e.ack}),
            hosts=self.statuses(),
            turns=self.turns,
            members={b: members.count(b) for b in members},
            held=True,
        )

    def statuses(self) -> dict[str, HostStatus]:
        return {
            n: HostStatus(name=n, serial=h.serial, error="bad" if h.failed else None, failed_serial=h.failed)
            for n, h in self.hosts.items()
        }

    @rule()
    def lead(self) -> None:
        if self.rollout is None:
            return
        step = machine.decide(self.view(self.rollout), at=0, by="b").step
        if step is None:
            return
        if step.plan is not None:
            self.check_plan(step)
            self.plan = step.plan
        if step.enabled is not None:
            assert step.enabled.serial == self.enabled.serial + 1
            assert self.plan.default in (None, *(b.build for b in step.enabled.builds))  # I6
            self.enabled = step.enabled
        self.rollout = None if step.rollout.done else step.rollout
        self.last = step.rollout

    def check_plan(self, step: machine.Step) -> None:
        plan = step.plan
        assert plan is not None
        assert plan.epoch == self.plan.epoch + 1  # I5
        if plan.default == self.plan.default or step.event is Event.ROLLBACK:
            return
        for edge in self.edges.values():  # I4
            assert edge.ack is not None
            assert edge.ack.staged == edge.plan.epoch == self.plan.epoch
            assert plan.default in edge.plan.serving

    @rule()
    def give_turns(self) -> None:
        paused = self.rollout is not None and self.rollout.state is RolloutState.PAUSED
        changes = turns.decide(self.enabled.serial, self.statuses(), self.turns, self.config.waves, granting=not paused)
        for name in changes.revoke:
            del self.turns[name]
        for name in changes.grant:
            self.turns[name] = Turn(serial=self.enabled.serial)

    # -- edges and hosts --

    @rule(name=st.sampled_from(EDGES), drained=st.booleans(), warm=st.booleans())
    def apply(self, name: str, drained: bool, warm: bool = True) -> None:
        edge = self.edges[name]
        if edge.plan.epoch != self.plan.epoch:
            edge.left.append(edge.plan)
            edge.plan = self.plan
        if drained:
            edge.left.clear()
        epoch = edge.plan.epoch
        staged = epoch if warm or self.plan.staged is None else (edge.ack.staged if edge.ack else 0)
        full = dict.fromkeys("ABCDE", len(HOSTS))
        edge.ack = Ack(incarnation="1", applied=epoch, staged=staged, drained=0 if edge.left else epoch, healthy=full)

    @rule(name=st.sampled_from(EDGES))
    def lose_the_agent(self, name: str) -> None:
        self.edges[name].ack = None  # the edge goes on serving what it serves

    @rule(name=st.sampled_from(HOSTS))
    def act(self, name: str) -> None:
        host, turn = self.hosts[name], self.turns.get(name)
        if turn is None or turn.serial < self.enabled.serial or host.serial >= self.enabled.serial:
            return
        wanted = [b.build for b in self.enabled.builds]
        for i, build in enumerate(host.slots):
            if build is not None and build not in wanted:
                assert build != self.plan.default  # I6
                for edge in self.edges.values():
                    assert not edge.may_need(build)  # I3
                host.slots[i] = None
        missing = [b for b in wanted if b not in host.slots]
        if missing and name in self.bad:
            host.failed = self.enabled.serial
            return
        for build in missing:
            host.slots[host.slots.index(None)] = build
        host.serial, host.failed = self.enabled.serial, 0

    @rule(name=st.sampled_from(HOSTS))
    def break_or_mend(self, name: str) -> None:
        self.bad ^= {name}

    # -- operators --

    @precondition(lambda self: self.rollout is None)
    @rule(build=st.sampled_from("ABCDE"), ramp=st.sampled_from([(), (10,), (1, 50, 100)]))
    def deploy(self, build: str, ramp: tuple[int, ...]) -> None:
        self.number += 1
        self.rollout = Rollout(
            number=self.number, service="shop", build=build, digest=DIGEST, by="ann", ramp=ramp, hold=0
        )

    @rule(verb=st.sampled_from(["pause", "resume", "abort", "rollback"]))
    def ask(self, verb: str) -> None:
        request = Request(verb=verb, by="ann")  # type: ignore[arg-type]
        if self.rollout is not None and machine.allowed(self.rollout.state, verb):
            self.rollout = self.rollout.model_copy(update={"request": request})
        elif self.rollout is None and verb == "rollback" and self.last and self.last.state is RolloutState.SWITCHED:
            self.rollout = self.last.model_copy(update={"request": request})

    @rule(rounds=st.integers(1, 8), drained=st.booleans(), warm=st.booleans())
    def go_on(self, rounds: int, drained: bool, warm: bool = True) -> None:
        """Some time in which nothing unusual happens."""
        for _ in range(rounds):
            self.lead()
            self.give_turns()
            for host in HOSTS:
                self.act(host)
            for edge in EDGES:
                self.apply(edge, drained, warm)

    # -- the promises --

    @invariant()
    def the_default_runs_everywhere_and_is_served(self) -> None:
        if self.plan.default is not None:
            assert self.plan.default in self.plan.serving
        assert len(self.plan.serving) <= 2

    @invariant()
    def nothing_ends_but_by_the_table(self) -> None:
        assert self.last is None or self.last.state is not RolloutState.FAILED

    def teardown(self) -> None:
        """The world behaves: whatever was begun comes to its end."""
        if not hasattr(self, "plan"):
            return
        self.bad.clear()
        for _ in range(60):
            if self.rollout is None:
                break
            if self.rollout.state is RolloutState.PAUSED:
                self.ask("resume")
            self.go_on(1, True)
        assert self.rollout is None
        builds = {b.build for b in self.enabled.builds}
        assert set(self.plan.serving) <= builds or self.last is None or self.last.state is RolloutState.ABORTED


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
