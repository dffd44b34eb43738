"""What the API does to ZooKeeper for an operator: configure and remove services, begin rollouts, ask things of them.

Never the plan nor ``enabled`` of an existing service: those belong to the controller that leads. Every write is
compare-and-set. Refusals are ``Refused`` with a sentence; the API turns them into its problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from barrier import machine, plans, predicates, snapshot
from barrier.snapshot import Fleet, Snapshot, lock_number, parse
from fleet import paths
from fleet.model import Plan, Request, Rollout, RolloutState, ServiceConfig
from fleet.zk import Check, Conflict, Create, Delete, Op, Set, ZooKeeper, ZooKeeperTrouble

#: Tries of a compare-and-set before giving up; each reads again.
TRIES = 8
#: How many past rollouts are searched for an idempotency key.
KEYS_KEPT = 100

Kind = Literal["unknown", "conflict"]


class Refused(Exception):
    """It cannot be done as things are. ``extra`` goes into the problem that the caller is shown."""

    def __init__(self, kind: Kind, sentence: str, **extra: Any) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.extra = extra


class Store:
    def __init__(self, zk: ZooKeeper) -> None:
        self.zk = zk

    # -- reading --

    def services(self) -> list[str]:
        names = self.zk.children(paths.SERVICES, watch=False)
        found = self.zk.get_many([paths.config(n) for n in names])
        return [n for n in names if paths.config(n) in found]

    def fleet(self, *, watch: bool = False) -> Fleet:
        return snapshot.read_fleet(self.zk, watch=watch)

    def read(self, service: str, *, watch: bool = False) -> Snapshot:
        found = snapshot.read(self.zk, service, self.fleet(watch=watch), watch=watch)
        if found is None:
            raise Refused("unknown", f"there is no service {service!r}", services=self.services())
        return found

    def plan(self, service: str) -> Plan:
        node = self.zk.get(paths.plan(service), watch=False)
        return parse(Plan, node, paths.plan(service)) if node else Plan()

    def numbers(self, service: str) -> list[int]:
        """All rollouts of the service, oldest first."""
        return sorted(int(n) for n in self.zk.children(paths.rollouts(service), watch=False) if n.isdigit())

    def rollout(self, service: str, number: int, *, watch: bool = False) -> Rollout | None:
        path = paths.rollout(service, number)
        node = self.zk.get(path, watch=watch)
        return parse(Rollout, node, path) if node else None

    def rollouts(self, service: str, last: int) -> list[Rollout]:
        """The last ones, newest first."""
        wanted = [paths.rollout(service, n) for n in self.numbers(service)[-last:]]
        found = self.zk.get_many(wanted)
        return [parse(Rollout, found[p], p) for p in reversed(wanted) if p in found]

    def active(self, service: str) -> int | None:
        path = paths.active_rollout(service)
        node = self.zk.get(path, watch=False)
        return lock_number(node, path) if node else None

    def leader(self) -> str | None:
        """The name of the replica that drives."""
        names = self.zk.children(paths.CANDIDATES, watch=False)
        node = self.zk.get(f"{paths.CANDIDATES}/{names[0]}", watch=False) if names else None
        return node.data.decode(errors="replace") if node else None

    # -- services --

    def configure(self, service: str, config: ServiceConfig) -> bool:
        """Write the configuration; True when that made the service. Refused where a rollout would be bent by it."""
        for _ in range(TRIES):
            node = self.zk.get(paths.config(service), watch=False)
            try:
                if node is None:
                    self._create(service, config)
                    return True
                before = parse(ServiceConfig, node, paths.config(service))
                ops: list[Op] = [Set(paths.config(service), config.encode(), node.version)]
                if (before.strategy, before.ports) != (config.strategy, config.ports):
                    number = self.active(service)
                    if number is not None:
                        raise Refused(
                            "conflict",
                            f"rollout {number} of {service} is active: strategy and ports cannot change under it",
                            active=number,
                        )
                    ops += _unlocked(service)
                self.zk.commit(ops)
                return False
            except Conflict:
                continue
        raise ZooKeeperTrouble(f"the configuration of {service} keeps changing under this request")

    def _create(self, service: str, config: ServiceConfig) -> None:
        """The whole skeleton at once: agents then never meet half a service. The plan says that nothing is served."""
        self.zk.ensure(paths.service(service))
        missing = (paths.acks, paths.turns, paths.hosts, paths.serversets, paths.rollouts)
        there = self.zk.get_many([p(service) for p in missing])
        ops: list[Op] = [Create(p(service), b"") for p in missing if p(service) not in there]
        if self.zk.get(paths.plan(service), watch=False) is None:
            ops.append(Create(paths.plan(service), Plan(epoch=1, updated_by="configured").encode()))
        if self.zk.get(paths.removed(service), watch=False) is not None:
            ops.append(Delete(paths.removed(service)))
        self.zk.commit([*ops, Create(paths.config(service), config.encode())])

    def remove(self, service: str) -> None:
        """Everything about the service, its configuration first. A marker stays and tells agents to let go of it."""
        self.read(service)
        self.zk.ensure(paths.REMOVED)
        for _ in range(TRIES):
            number = self.active(service)
            if number is not None:
                raise Refused("conflict", f"rollout {number} of {service} is active: abort it first", active=number)
            try:
                if self.zk.get(paths.config(service), watch=False) is not None:
                    marker = Create(paths.removed(service), b"")
                    self.zk.commit([*_unlocked(service), marker, Delete(paths.config(service))])
                self._remove_tree(paths.service(service))
                return
            except Conflict:
                continue  # an agent wrote below it before it saw that the service is gone
        raise ZooKeeperTrouble(f"{service} is no longer configured, but agents still write below it: try again")

    def _remove_tree(self, path: str) -> None:
        for name in self.zk.children(path, watch=False):
            self._remove_tree(f"{path}/{name}")
        self.zk.delete(path)

    # -- rollouts --

    def begin(self, wanted: Rollout, *, expected_epoch: int | None = None) -> tuple[Rollout, bool]:
        """Take the lock and queue ``wanted`` under the next number; True: made now, False: by that key before."""
        service = wanted.service
        for _ in range(TRIES):
            if (known := self._known(wanted)) is not None:
                return known, False
            snap = self.read(service)
            if snap.rollout is not None or snap.lock_version is not None:
                number = snap.rollout.number if snap.rollout else self.active(service)
                raise Refused(
                    "conflict",
                    f"rollout {number} of {service} is active; wait for it or abort it",
                    active=snap.rollout.model_dump(mode="json") if snap.rollout else number,
                )
            if expected_epoch is not None and snap.plan.epoch != expected_epoch:
                raise Refused(
                    "conflict",
                    f"the plan of {service} is at epoch {snap.plan.epoch}, not {expected_epoch}: look at it again",
                    epoch=snap.plan.epoch,
                )
            numbers = self.numbers(service)
            number = numbers[-1] + 1 if numbers else 1
            rollout = wanted.model_copy(update={"number": number, "strategy": snap.config.strategy})
            ops: list[Op] = [
                Create(paths.rollout(service, number), rollout.encode()),
                Create(paths.active_rollout(service), str(number).encode()),
            ]
            if expected_epoch is not None and snap.plan_version is not None:
                ops.append(Check(paths.plan(service), snap.plan_version))
            try:
                self.zk.commit(ops)
            except Conflict:
                continue
            return rollout, True
        raise ZooKeeperTrouble(f"the rollouts of {service} keep changing under this request: try again")

    def _known(self, wanted: Rollout) -> Rollout | None:
        if wanted.idempotency_key is None:
            return None
        for rollout in self.rollouts(wanted.service, KEYS_KEPT):
            if rollout.idempotency_key != wanted.idempotency_key:
                continue
            if (rollout.build, rollout.ramp) != (wanted.build, wanted.ramp):
                raise Refused(
                    "conflict",
                    f"that idempotency key began rollout {rollout.number} of {rollout.build}: use a new one",
                    active=rollout.number,
                )
            return rollout
        return None

    def ask(
        self,
        service: str,
        number: int,
        verb: Literal["pause", "resume", "abort", "rollback"],
        *,
        by: str,
        reason: str = "",
    ) -> Rollout:
        """Leave a request on the rollout for the leader. Refused when the table holds no such transition."""
        for _ in range(TRIES):
            path = paths.rollout(service, number)
            node = self.zk.get(path, watch=False)
            if node is None:
                raise Refused("unknown", f"{service} has no rollout {number}", rollouts=self.numbers(service)[-20:])
            rollout = parse(Rollout, node, path)
            asked = rollout.model_copy(update={"request": Request(verb=verb, by=by, reason=reason)})
            ops: list[Op] = [Set(path, asked.encode(), node.version)]
            if rollout.done:
                self._check_rollback(rollout, verb)
                ops.append(Create(paths.active_rollout(service), str(number).encode()))
            elif not machine.allowed(rollout.state, verb):
                hint = ": roll it back instead" if verb == "abort" and rollout.state is RolloutState.SWITCHED else ""
                raise Refused("conflict", f"rollout {number} is {rollout.state}: it cannot {verb}{hint}")
            try:
                self.zk.commit(ops)
            except Conflict:
                continue
            return asked
        raise ZooKeeperTrouble(f"rollout {number} of {service} keeps changing under this request: try again")

    def _check_rollback(self, rollout: Rollout, verb: str) -> None:
        service, number = rollout.service, rollout.number
        if verb != "rollback" or rollout.state is not RolloutState.SWITCHED:
            raise Refused("conflict", f"rollout {number} is over ({rollout.state}): it cannot {verb}")
        active = self.active(service)
        if active is not None:
            raise Refused(
                "conflict", f"rollout {active} of {service} is active; wait for it or abort it", active=active
            )
        snap = self.read(service)
        previous = rollout.previous
        if snap.plan.default != rollout.build:
            why = f"the default is {snap.plan.default}, not {rollout.build}"
        elif previous is None:
            why = f"nothing was served before {rollout.build}"
        elif rollout.strategy == "inplace" or previous not in snap.plan.serving or not snap.members.get(previous):
            why = f"{previous} is no longer running beside it; deploy it instead"
        else:
            return
        raise Refused("conflict", f"rollout {number} cannot be rolled back: {why}")

    # -- for jobs that drive the steps themselves --

    def change(self, service: str, operation: str, version: str, *, by: str) -> tuple[Plan, Plan]:
        """One operation on the plan while no rollout is active; the plan before and after.

        The same fence and compare-and-set as the leader's writes: whoever leads, it has not read another plan.
        """
        for _ in range(TRIES):
            fence = self.zk.get(paths.FENCE, watch=False)
            snap = self.read(service)
            if snap.lock_version is not None:
                raise Refused(
                    "conflict", f"a rollout of {service} is active: it drives the plan", active=self.active(service)
                )
            if fence is None or snap.plan_version is None:
                raise ZooKeeperTrouble("no replica of the barrier service has led yet: try again")
            after = _operate(snap, operation, version).model_copy(update={"updated_by": by, "rollout": None})
            write = Set(paths.plan(service), after.encode(), snap.plan_version)
            try:
                self.zk.commit([Check(paths.FENCE, fence.version), *_unlocked(service), write])
            except Conflict:
                continue
            return snap.plan, after
        raise ZooKeeperTrouble(f"the plan of {service} keeps changing under this request: try again")

    # -- edges --

    def evict(self, edge: str) -> bool:
        """Barriers no longer wait for ``edge``. False where it was not on the roster, but lives; Refused: unknown."""
        fleet = self.fleet()
        if edge not in fleet.roster:
            if edge in fleet.alive:
                return False
            raise Refused("unknown", f"there is no edge {edge!r}", edges=sorted({*fleet.roster, *fleet.alive}))
        self.zk.delete(paths.rostered(edge))
        return True


def _operate(snap: Snapshot, operation: str, version: str) -> Plan:
    match operation:
        case "withdraw":
            return plans.withdraw(snap.plan, [version])
        case "offer":
            return plans.offer(snap.plan, version)
        case "stage":
            return plans.stage(snap.plan, version)
    if snap.plan.staged is None or snap.plan.staged.default != version:
        raise Refused("conflict", f"{version} is not staged: stage it first")
    registered = snap.members.get(version, 0)
    missing = predicates.ready(snap.edges, snap.plan.epoch, version, registered, snap.config.health.floor)
    if missing:
        shown = [{"edge": m.who, "why": m.why} for m in missing]
        raise Refused("conflict", "not every edge is ready: " + "; ".join(map(str, missing)), missing=shown)
    return plans.commit(snap.plan)


def _unlocked(service: str) -> Sequence[Op]:
    """Operations that fail, and the transaction with them, where a rollout is active."""
    lock = paths.active_rollout(service)
    return [Create(lock, b"0"), Delete(lock)]
