"""I1 to I13, watched: each write to ZooKeeper, each change at an edge, each stop and start on a host, each request.

They look at what is really so in the world, and at what was written; never at what the code under test thinks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from barrier.controller import LOST_SECONDS
from fleet import paths
from fleet.model import Ack, Enabled, HostStatus, Plan, Rollout, RolloutState, ServiceConfig, SlotState, Turn, decode
from fleet.zk import Op, Set
from tests.proof.clients import Client, WentBack
from tests.proof.edges import SERVICE, Edge
from tests.proof.hosts import Host
from tests.proof.varnish import Routing
from tests.proof.zookeeper import Change, Session, Tree

if TYPE_CHECKING:
    from tests.proof.world import World


class Broken(AssertionError):
    """A promise did not hold."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


def holds(promise: str, so: object, what: str) -> None:
    if not so:
        raise Broken(promise, what)


def _fell(was: set[str], kept: set[str], lost: set[str]) -> bool:
    """More than half went at once, or all."""
    return bool(was and lost) and (not kept or (len(lost) > len(was) / 2 and len(kept) < len(was)))


def _left_bit_by_bit(was: set[str], sets: Sequence[set[str]]) -> set[str]:
    """Who of ``was`` left in small steps, as an edge read them."""
    left: set[str] = set()
    have = was
    for now in sets:
        lost = have - now
        if _fell(have, now, lost):
            have = have | now
        else:
            left, have = (left | lost) - now, now
    return left & was


class Promises:
    def __init__(self, world: World) -> None:
        self._world = world
        #: Every plan that there was, by epoch.
        self.plans: dict[int, Plan] = {}
        #: Who raised the fence last.
        self.leader = ""
        #: Version -> what took it away last: a rollout's number, or an epoch of a step by hand.
        self._taken: dict[str, object] = {}
        self._stepped_at = 0.0
        #: Hosts that were given a turn and say nothing, and since when.
        self._absent: dict[str, float] = {}
        #: Serial of ``enabled`` -> everybody who was ever given a turn for it.
        self._given: dict[int, set[str]] = {}
        #: Edge and version -> every server set that the edge has read since what it routes by changed last.
        self._read: dict[tuple[str, str], list[set[str]]] = {}

    # -- what is written to ZooKeeper --

    def written(self, session: Session, ops: Sequence[Op], changes: tuple[Change, ...]) -> None:
        decided = (paths.plan(SERVICE), paths.enabled(SERVICE), f"{paths.rollouts(SERVICE)}/")
        led = (*decided, f"{paths.turns(SERVICE)}/")
        for op in ops:
            if isinstance(op, Set) and op.path.startswith(decided):
                holds("I5", op.version >= 0, f"{session.name} sets {op.path} whatever it holds")
        for c in changes:
            if c.path == paths.FENCE and c.after is not None:
                self.leader = session.name
            if session.name in self._world.replicas and c.path.startswith(led):
                holds("I5", session.name == self.leader, f"{session.name} writes {c.path}, {self.leader} leads")
            if c.path == paths.plan(SERVICE) and c.after:
                self._plan(session, decode(Plan, c.before) or Plan(), Plan.model_validate_json(c.after))
            elif c.path == paths.enabled(SERVICE) and c.after:
                self._enabled(decode(Enabled, c.before) or Enabled(), Enabled.model_validate_json(c.after))
            elif c.path.startswith(f"{paths.rollouts(SERVICE)}/") and c.before and c.after:
                self._heard(Rollout.model_validate_json(c.before), Rollout.model_validate_json(c.after))
            elif c.path.startswith(f"{paths.acks(SERVICE)}/") and c.after:
                self._ack(self._world.edges[c.path.rpartition("/")[2]], Ack.model_validate_json(c.after))
        given = [c for c in changes if c.after is not None and c.path.startswith(f"{paths.turns(SERVICE)}/")]
        for c in given:
            assert c.after is not None
            self._given.setdefault(Turn.model_validate_json(c.after).serial, set()).add(c.path.rpartition("/")[2])
        if given:
            self._turns()
            self._capacity(session, {c.path.rpartition("/")[2] for c in given})

    @staticmethod
    def _heard(before: Rollout, after: Rollout) -> None:
        """Who was told that an abort is on its way finds it in the history, or that it was refused."""
        asked, now = before.request, after.request
        if asked is None or asked == now or asked.verb not in ("abort", "rollback"):
            return
        answered = len(after.history) > len(before.history)
        again = now is not None and now.verb in ("abort", "rollback")
        holds("heard", answered or again, f"{asked.by} asked to {asked.verb}, and now it says {now}")

    def _plan(self, session: Session, before: Plan, after: Plan) -> None:
        holds("I5", after.epoch == before.epoch + 1, f"epoch {before.epoch} is followed by {after.epoch}")
        moved = after.default != before.default
        holds("I5", after.generation == before.generation + moved, f"generation {after.generation} after {before}")
        holds("I6", after.default is not None or before.default is None, f"no default any more: {after}")
        holds("I6", after.default is None or after.default in after.serving, f"the default is not served: {after}")
        holds("I6", len(after.serving) <= 2, f"{after.serving} are served")
        rollout = self._world.active()
        if moved and after.default is not None:
            back = rollout is not None and rollout.state is RolloutState.ROLLING_BACK
            if back:
                holds("I4", after.default in before.serving, f"rolled back to {after.default}, which is not served")
            else:
                self._ready(session, before, after.default)
        self._held(before, after, session)
        for v in before.serving:
            if v not in after.serving:
                self._taken[v] = after.rollout if after.rollout is not None else f"by hand, epoch {after.epoch}"
        self.plans[after.epoch] = after

    def _ready(self, session: Session, before: Plan, version: str) -> None:
        """By what the writer could know: every edge on the roster said so, and it is really there."""
        members = paths.serverset(SERVICE, version)
        registered = len([p for p in session.read_below.get(members, {}) if p.startswith(f"{members}/")])
        holds("I4", registered, f"{version} becomes the default and no host has registered it")
        floor = max(1, math.ceil(registered * self._world.config.health.floor / 100))
        acks = session.read_below.get(paths.acks(SERVICE), {})
        for path in session.read_from:
            if path.startswith(f"{paths.ROSTER}/"):
                edge = path.rpartition("/")[2]
                stored = acks.get(paths.ack(SERVICE, edge))
                holds("I4", stored, f"{version} becomes the default without {edge}, which has said nothing")
                assert stored is not None
                ack = Ack.model_validate_json(stored.data)
                good = min(ack.applied, ack.staged) >= before.epoch and ack.healthy.get(version, 0) >= floor
                holds("I4", good, f"{version} becomes the default of epoch {before.epoch + 1}; {edge} is at {ack}")

    def _held(self, before: Plan, after: Plan, session: Session) -> None:
        """A step of a ramp lasts as long as it was asked to, on whoever's clock."""
        world, ramp = self._world, before.ramp
        rollout = world.rollout_in(world.server.states[-2], before.rollout)
        on = ramp is not None and ((after.ramp or ramp) != ramp or after.default == ramp.version)
        if on and rollout and rollout.state is RolloutState.RAMPING and rollout.request is None:
            lasted = world.now - self._stepped_at
            assert not isinstance(rollout.hold, str), f"a ramp that waits for a {rollout.hold} went on by itself"
            holds("I11", lasted >= rollout.hold - 1e-6, f"a ramp's step lasted {lasted} s, not {rollout.hold}")
        if after.ramp != ramp:
            self._stepped_at = world.now

    def _enabled(self, before: Enabled, after: Enabled) -> None:
        holds("I5", after.serial == before.serial + 1, f"serial {before.serial} is followed by {after.serial}")
        if self._world.config.strategy == "inplace":
            return  # one slot: the default is replaced, a host at a time
        default = self._world.plan().default
        holds("I6", default in (None, *(b.build for b in after.builds)), f"{default} is to be removed: {after}")

    def _turns(self) -> None:
        """Restart concurrency: hosts in their turn that are neither done nor have failed."""
        world, tree = self._world, self._world.server.now
        if world.plan().default is None:
            return
        serial = world.enabled().serial
        busy = []
        for path, stored in tree.items():
            if path.startswith(f"{paths.turns(SERVICE)}/") and Turn.model_validate_json(stored.data).serial >= serial:
                host = world.host_status(path.rpartition("/")[2])
                if host is None:
                    away = world.now - self._absent.get(path.rpartition("/")[2], world.now)
                    if away < LOST_SECONDS:
                        busy.append(path.rpartition("/")[2])
                elif host.serial < serial and not (host.error and host.failed_serial == serial):
                    busy.append(path.rpartition("/")[2])
        config = ServiceConfig.model_validate_json(tree[paths.config(SERVICE)].data)
        holds("turns", len(busy) <= (config.waves.concurrency or 1), f"{busy} are in their turns at once")

    def _capacity(self, session: Session, given: set[str]) -> None:
        """Of the hosts that this release has touched so many may not serve as it should be, by what the writer knew.

        The others have not been asked to give anything up. So what serves never falls below all but those.
        """
        world, below = self._world, paths.hosts(SERVICE)
        if world.plan().default is None or below not in session.read_below:
            return
        enabled, tree = world.enabled(), session.read_below[below]
        out = set()
        for name in self._given.get(enabled.serial, set()):
            stored = tree.get(paths.host(SERVICE, name))
            status = decode(HostStatus, stored.data) if stored else None
            serving = {s.build for s in status.slots if s.live and s.state is SlotState.SERVING} if status else set()
            if status is None and world.now - self._absent.get(name, world.now) >= LOST_SECONDS:
                continue  # gone for good: who waits for it is told by the rollout
            if status is None or status.serial < enabled.serial or not {b.build for b in enabled.builds} <= serving:
                out.add(name)
        waves = world.config.waves
        most = (waves.concurrency or 1) + waves.max_failures
        holds("capacity", len(out) <= most or not given & out - self._idle(tree, given), f"{out} are out at once")

    @staticmethod
    def _idle(tree: Tree, names: set[str]) -> set[str]:
        """Those of ``names`` that serve nothing, and so have nothing to lose."""
        found = set()
        for name in names:
            stored = tree.get(paths.host(SERVICE, name))
            status = decode(HostStatus, stored.data) if stored else None
            if status is None or not any(s.live and s.state is SlotState.SERVING for s in status.slots):
                found.add(name)
        return found

    # -- what edges say and do --

    def _ack(self, edge: Edge, ack: Ack) -> None:
        """No edge claims what is not so."""
        if ack.applied:
            so = any(edge.serves(p) for e, p in self.plans.items() if e >= ack.applied)
            holds("I1", so, f"{edge.name} says epoch {ack.applied}, and goes by {edge.routing}")
        plan = self._world.plan()
        if plan.staged and min(ack.applied, ack.staged) >= plan.epoch:
            warm = [r for r in (edge.routing, *edge.varnish.staged(SERVICE)) if r]
            after = plan.committed()
            so = any(
                (r.generation, r.default, r.serving) == (after.generation, after.default, after.serving) for r in warm
            )
            holds("I4", so, f"{edge.name} says that {plan.staged} is warm, and holds {warm}")
        if ack.drained:
            newer = [p for e, p in self.plans.items() if e >= ack.drained]
            old = [v for v in edge.varnish.under_way() if not any(v in p.serving for p in newer)]
            holds("I3", not old, f"{edge.name} says drained {ack.drained}, with requests for {old}")
        for version, count in ack.healthy.items() if self._world.config.strategy == "dual" else ():
            real = sum(1 for h in self._world.machines.values() if h.runs(version))
            holds("I4", count <= max(real, 0), f"{edge.name} sees {count} healthy {version}, there are {real}")

    def edge_changed(self, edge: Edge, before: Routing | None, was_green: bool) -> None:
        now = edge.routing
        # Its page may turn red meanwhile, where its hosts die, and green again; what its users get stays.
        kept = now == before or not (was_green or edge.varnish.green)
        holds("I12", edge.reaches_zookeeper or kept, f"{edge.name} changes while ZooKeeper is away: {before} to {now}")
        if now is not None:
            holds("I1", any(edge.serves(p) for p in self.plans.values()), f"{edge.name} goes by no plan: {now}")
        if edge.varnish.green and not was_green:
            assert edge.session is not None
            tree = edge.session.read_from
            holds("I9", paths.rostered(edge.name) in tree, f"{edge.name} is green and nobody waits for it")
            if stored := tree.get(paths.plan(SERVICE)):
                latest = Plan.model_validate_json(stored.data)
                holds("I9", edge.serves(latest), f"{edge.name} is green at {now}, the plan is {latest}")
        if before is None or now is None:
            return
        holds("I7", now.generation >= before.generation, f"{edge.name} goes back from {before} to {now}")
        if before.mode == "mixed" or now.mode == "mixed":
            return
        for v in set(before.serving) & set(now.serving):
            was, kept = set(before.of(v)), set(now.of(v))
            elsewhere = {e for w in now.backends if w != v for e in now.of(w)}
            lost = was - kept - elsewhere
            if _fell(was, kept, lost):
                # Compiler and probes may hold an edge up while hosts leave one by one: each of those may be believed.
                self._look(edge, v)
                sets = self._read.get((edge.name, v), [])
                lost -= _left_bit_by_bit(was, sets)
            holds("I13", not _fell(was, kept, lost), f"{edge.name} has {sorted(kept)} of {v} left of {sorted(was)}")
        self._read = {(name, v): sets[-1:] for (name, v), sets in self._read.items() if name == edge.name} | {
            key: sets for key, sets in self._read.items() if key[0] != edge.name
        }

    def _look(self, edge: Edge, version: str) -> None:
        """What the edge's last look at a server set found."""
        members = paths.serverset(SERVICE, version)
        if edge.session is None or members not in edge.session.read_below:
            return
        start = f"{members}/"
        found = {p[len(start) :] for p in edge.session.read_below[members] if p.startswith(start)}
        sets = self._read.setdefault((edge.name, version), [])
        if not sets or sets[-1] != found:
            sets.append(found)

    # -- hosts --

    def host_stops(self, host: Host, build: str, endpoint: str) -> None:
        world = self._world
        holds("I12", host.session and host.session.connected, f"{host.name} stops {build} without ZooKeeper")
        turn = world.server.now.get(paths.turn(SERVICE, host.name))
        may = turn is not None or host.machine.reached.matches(world.enabled())
        holds("turns", may, f"{host.name} stops {build} and it is not its turn")
        if world.config.strategy == "inplace":
            return
        holds("I6", build != world.plan().default, f"{host.name} stops {build}, the default")
        for edge in world.edges.values():
            holds("I3", edge.out or not edge.may_need(build), f"{host.name} stops {build}, {edge.name} may need it")

    def host_starts(self, host: Host, build: str, endpoint: str) -> None:
        there = host.at(endpoint)
        holds("I10", there is None, f"{endpoint} becomes {build} while it is {there}: nothing was drained")
        if self._world.config.strategy == "inplace":
            return
        for edge in self._world.edges.values():
            if edge.takes_traffic and (now := edge.routing):
                wrong = [v for v in now.serving if v != build and endpoint in now.of(v)]
                holds("I10", not wrong, f"{endpoint} becomes {build}, {edge.name} has it as {wrong}")

    # -- clients --

    def request(self, client: Client, edge: Edge, document: bool) -> None:
        if not edge.takes_traffic or (now := edge.routing) is None:
            return
        if document:
            try:
                client.document(now)
            except WentBack as e:
                raise Broken("I7", f"a document went back at {edge.name}: {e}") from e
            return
        if (gone := client.fetch(now)) is not None:
            by = self._taken.get(gone)
            holds("I7", by is not None, f"{edge.name} does not serve {gone}, which nobody withdrew")
            client.forced[by] += 1
            holds("I7", client.forced[by] <= 1, f"moved {client.forced[by]} times by {by}: {client}")

    # -- at any time --

    def check(self) -> None:
        turns = {p.rpartition("/")[2] for p in self._world.server.now if p.startswith(f"{paths.turns(SERVICE)}/")}
        turns |= self._given.get(self._world.enabled().serial, set())
        absent = {n for n in turns if self._world.host_status(n) is None}
        self._absent = {n: self._absent.get(n, self._world.now) for n in absent}
        for edge in self._world.edges.values():
            now = edge.routing
            for v in now.serving if now is not None else ():
                self._look(edge, v)
            if not edge.takes_traffic or now is None or now.mode == "mixed":
                continue
            for v in now.serving:
                for endpoint in now.of(v):
                    there = self._world.at(endpoint)
                    holds("I10", there in (None, v), f"{edge.name} sends {v} to {endpoint}, where {there} runs")


__all__ = ["Broken", "Promises", "Rollout", "holds"]
