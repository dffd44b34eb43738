"""Each invariant's guards, and how each is broken on purpose. A mutation that no scenario notices fails the test.

``where`` is the function or method that is replaced, as ``module:name`` or ``module:Class.name``; ``by`` makes the
broken one from the one that is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from edge.members import Accepted
from edge.view import Seen
from fleet.model import Ack, Plan
from fleet.zk import Check, Set, ZooKeeperTrouble
from hostagent.work import Start, Stop

Function = Callable[..., Any]


@dataclass(frozen=True)
class Mutation:
    name: str
    #: The promise that must be found broken; for I8, whichever else.
    breaks: str
    where: str
    by: Callable[[Function], Function]
    #: The story that shows it.
    scenario: str
    #: Guards behind this one, broken with it.
    also: tuple[tuple[str, Callable[[Function], Function]], ...] = ()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While this lasts it is broken."""
        with contextlib.ExitStack() as stack:
            for where, by in ((self.where, self.by), *self.also):
                stack.enter_context(self._patched(where, by))
            yield

    @staticmethod
    def _patched(where: str, by: Callable[[Function], Function]) -> Any:
        module, _, name = where.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, last = name.split(".")
        for part in outer:
            owner = getattr(owner, part)
        found = owner.__dict__[last]
        if isinstance(found, staticmethod):
            return mock.patch.object(owner, last, staticmethod(by(found.__func__)))
        return mock.patch.object(owner, last, by(found))


def returns(value: object) -> Callable[[Function], Function]:
    return lambda _: lambda *_args, **_kwargs: value


def then(change: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """As it is, but for what comes out."""
    return lambda original: lambda *a, **k: change(original(*a, **k))


def with_first(change: Callable[..., Any]) -> Callable[[Function], Function]:
    """As it is, but for what goes in first."""
    return lambda original: lambda first, *a, **k: original(change(first), *a, **k)


def _plan_of_one(plan: Plan) -> Plan:
    return plan.model_copy(update={"serving": (plan.default,), "staged": None})


def _same_epoch(original: Function) -> Function:
    return lambda plan, **changes: original(plan, **changes).model_copy(update={"epoch": plan.epoch})


def _same_generation(original: Function) -> Function:
    return lambda plan: original(plan).model_copy(update={"generation": plan.generation})


def _without(kind: type) -> Callable[[Function], Function]:
    """Operations of that kind are left out of what is committed."""

    def by(original: Function) -> Function:
        def commit(self: Any, fence: int, ops: list[Any]) -> None:
            self._zk.commit([op for op in ops if not isinstance(op, kind)])

        return commit

    return by


def _put_anyway(_: Function) -> Function:
    def put(path: str, data: bytes, version: int | None) -> Set:
        return Set(path, data, -1)

    return put


def _roster_of_the_living(original: Function) -> Function:
    """Who is away is not waited for."""

    def read(*args: Any, **kwargs: Any) -> Any:
        fleet = original(*args, **kwargs)
        return dataclasses.replace(fleet, roster=tuple(e for e in fleet.roster if e in fleet.alive))

    return read


def _remembered_roster(original: Function) -> Function:
    """The roster as it was when the replica began to lead."""
    first: dict[int, Any] = {}

    def read(zk: Any, **kwargs: Any) -> Any:
        return first.setdefault(id(zk), original(zk, **kwargs))

    return read


def _says_drained(original: Function) -> Function:
    def ack(*args: Any, **kwargs: Any) -> Ack:
        said: Ack = original(*args, **kwargs)
        return said.model_copy(update={"drained": said.applied})

    return ack


def _says_the_plans(**fields: str) -> Callable[[Function], Function]:
    """The ack says what is asked, not what is so."""

    def by(original: Function) -> Function:
        def ack(want: Any, *args: Any, **kwargs: Any) -> Ack:
            said: Ack = original(want, *args, **kwargs)
            return said.model_copy(update=dict.fromkeys(fields, want.epoch))

        return ack

    return by


def _believes_all(_: Function) -> Function:
    def accept(last: Any, seen: Any, plan: Plan) -> Accepted:
        return Accepted({v: seen.get(v, ()) for v in (*plan.serving,)}, {})

    return accept


def _reads_nothing_when_away(original: Function) -> Function:
    """ZooKeeper's absence is taken for an empty fleet."""

    def read(self: Any) -> dict[str, Seen]:
        try:
            found: dict[str, Seen] = original(self)
        except ZooKeeperTrouble:
            return {name: Seen(self._catalog[name].config, Plan(epoch=1 << 30), {}) for name in self._catalog}
        return found

    return read


def _anyway(otherwise: object) -> Callable[[Function], Function]:
    """ZooKeeper's absence is nothing to stop for."""

    def by(original: Function) -> Function:
        def carry_on(*args: Any) -> Any:
            try:
                return original(*args)
            except ZooKeeperTrouble:
                return otherwise

        return carry_on

    return by


def _by_wall_clock(original: Function) -> Function:
    """How long a ramp's step was held, by the history's times."""

    def view(self: Any, snap: Any, rollout: Any) -> Any:
        held = bool(rollout.history) and abs(self._wall() - rollout.history[-1].at) >= rollout.hold
        return dataclasses.replace(original(self, snap, rollout), held=held)

    return view


def _starts_over(original: Function) -> Function:
    """A host starts the new version where the old one still runs."""

    def decide(view: Any) -> Any:
        decision = original(view)
        new = [e.build for e in view.enabled.builds] if view.enabled else []
        work = [Start(w.slot, new[0]) if isinstance(w, Stop) and new else w for w in decision.work]
        return dataclasses.replace(decision, work=tuple(work))

    return decide


def _ends_when_done(original: Function) -> Function:
    """Who is done is looked at no more."""

    def decide(serial: int, hosts: Any, turns: Any, *args: Any, **kwargs: Any) -> Any:
        done = [n for n in turns if n in hosts and hosts[n].serial >= serial]
        changes = original(serial, hosts, {n: t for n, t in turns.items() if n not in done}, *args, **kwargs)
        return dataclasses.replace(changes, revoke=tuple({*changes.revoke, *done}))

    return decide


def _in_memory(original: Function) -> Function:
    """What an abort puts back is not written down."""
    return lambda view: original(view) | {"served": (), "before": ()}


def _ready_without(*words: str) -> Callable[[Function], Function]:
    """The barrier before the switch overlooks whoever is missing for one of these reasons."""

    def by(original: Function) -> Function:
        def ready(*args: Any, **kwargs: Any) -> Any:
            return tuple(m for m in original(*args, **kwargs) if not any(w in m.why for w in words))

        return ready

    return by


MUTATIONS = (
    Mutation(
        "an edge claims the latest epoch whatever it serves",
        "I1",
        "edge.plan:ack",
        _says_the_plans(applied=""),
        "compiler_fails",
    ),
    Mutation(
        "the withdrawal's barrier waits for nobody",
        "I3",
        "barrier.predicates:drained",
        returns(()),
        "third_release",
    ),
    Mutation(
        "the withdrawal's barrier does not wait for requests that are under way",
        "I3",
        "barrier.predicates:_drained",
        lambda _: lambda epoch: lambda ack: None,
        "third_release",
    ),
    Mutation("an edge says drained while requests last", "I3", "edge.plan:ack", _says_drained, "third_release"),
    Mutation("who is away is not waited for", "I3", "barrier.snapshot:read_fleet", _roster_of_the_living, "agent_away"),
    Mutation(
        "the roster is read once", "I3", "barrier.snapshot:read_fleet", _remembered_roster, "edge_joins_in_between"
    ),
    Mutation(
        "the default moves although the staged plan is not warm",
        "I4",
        "barrier.predicates:ready",
        _ready_without("not warm"),
        "staging_fails",
    ),
    Mutation(
        "the default moves although an edge sees too few healthy hosts",
        "I4",
        "barrier.predicates:ready",
        _ready_without("healthy"),
        "probes_find_nothing",
    ),
    Mutation(
        "the default moves before every edge offers it",
        "I4",
        "barrier.predicates:ready",
        _ready_without("epoch", "no ack"),
        "agent_away_at_the_offer",
    ),
    Mutation(
        "an edge claims a warm staged plan",
        "I4",
        "edge.plan:ack",
        _says_the_plans(staged=""),
        "staging_fails",
    ),
    Mutation("the epoch does not grow", "I5", "barrier.plans:_next", _same_epoch, "third_release"),
    Mutation("the generation does not grow", "I5", "barrier.plans:commit", _same_generation, "third_release"),
    Mutation(
        "the leader's fence is not checked",
        "I5",
        "barrier.controller:Controller._commit",
        _without(Check),
        "deposed_leader_alone",
    ),
    Mutation("a write does not compare", "I5", "barrier.controller:_put", _put_anyway, "third_release"),
    Mutation(
        "hosts are told to run the new version alone",
        "I6",
        "barrier.actions:_enabled",
        lambda original: lambda view, builds: original(view, builds[:1]),
        "third_release",
    ),
    Mutation(
        "an abort takes away what is the default",
        "I6",
        "barrier.actions:_remember",
        then(lambda found: found | {"before": found["before"][1:]}),
        "abort_installing",
    ),
    Mutation(
        "the version before is withdrawn with the switch",
        "I7",
        "barrier.plans:commit",
        then(_plan_of_one),
        "third_release",
    ),
    Mutation(
        "a page turns green before it is waited for",
        "I9",
        "edge.presence:Presence.register",
        returns(True),
        "edge_joins",
    ),
    Mutation(
        "a page turns green by whatever is loaded",
        "I9",
        "edge.plan:red",
        returns(None),
        "edge_restarts_at_the_switch",
    ),
    Mutation(
        "a host starts a version where another one runs",
        "I10",
        "hostagent.plan:decide",
        _starts_over,
        "third_release",
    ),
    Mutation(
        "a replica keeps to itself what a successor needs",
        "I8",
        "barrier.actions:_remember",
        _in_memory,
        "abort_installing",
    ),
    Mutation(
        "a later word takes an abort's place",
        "heard",
        "barrier.machine:gives_way",
        returns(True),
        "abort_before_anybody_leads",
    ),
    Mutation("hosts act without a turn", "turns", "hostagent.plan:_allowed", returns(True), "third_release"),
    Mutation("every host gets its turn at once", "turns", "barrier.turns:limit", returns(99), "third_release"),
    Mutation(
        "a host that died after its turn is forgotten",
        "capacity",
        "barrier.turns:down",
        returns(frozenset()),
        "dies_after_its_turn",
    ),
    Mutation(
        "a turn ends as soon as it is done",
        "capacity",
        "barrier.turns:decide",
        _ends_when_done,
        "vanishes_after_its_turn",
    ),
    Mutation(
        "a lost host keeps the others from their turns",
        "liveness",
        "barrier.controller:Controller._lost",
        returns(frozenset()),
        "host_vanishes_tolerated",
    ),
    Mutation(
        "a ramp's step is held by wall clocks",
        "I11",
        "barrier.controller:Controller._view",
        _by_wall_clock,
        "leader_changes_in_a_ramp",
    ),
    Mutation(
        "an edge takes ZooKeeper's absence for an empty fleet",
        "I12",
        "edge.reading:Reading._read",
        _reads_nothing_when_away,
        "zookeeper_away",
        also=(
            ("edge.presence:Presence.register", _anyway(True)),
            ("edge.presence:Presence.leaving", _anyway(False)),
            ("edge.presence:Presence.acknowledge", _anyway(None)),
        ),
    ),
    Mutation(
        "a server set is believed whatever it lost", "I13", "edge.members:accept", _believes_all, "sessions_expire"
    ),
)

__all__ = ["MUTATIONS", "Mutation"]
