"""The agent that drives rollouts: one replica leads, reads everything, asks the machine, writes one transaction.

It keeps nothing that a successor needs: what it remembers are its own clock's readings (since when it waits), and a
successor starts those anew. Every write names the fence and the versions that it was decided on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from barrier import machine, plans, remedies, snapshot, turns
from barrier.election import Election
from barrier.lifetimes import Lifetimes
from barrier.metrics import Metrics
from barrier.predicates import Missing
from barrier.pruning import Pruner
from barrier.snapshot import BadPayload, Snapshot
from barrier.stalls import Stalls
from barrier.store import queue, stall_policy
from barrier.store.audit import By
from barrier.view import View
from fleet import log, paths
from fleet.loop import Said
from fleet.model import HostStatus, Rollout, RolloutState, Turn
from fleet.recall import Recall
from fleet.zk import Check, Conflict, Create, Delete, Op, Set, ZooKeeper, ZooKeeperTrouble

_log = log.get()

#: Transitions of one service in one cycle; more wait for the next, so that no service starves the others.
STEPS_AT_ONCE = 20
#: Turns given and taken back in one transaction: ZooKeeper takes no packet of more than a megabyte.
TURNS_AT_ONCE = 500
#: Hosts that a line of the log names.
NAMED = 20
#: Seconds after which a host that is away or down in its turn counts as failed. A restart of its agent takes less.
LOST_SECONDS = 30.0


class Controller:
    def __init__(
        self,
        zk: ZooKeeper,
        name: str,
        metrics: Metrics,
        wake: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._zk = zk
        self._recall = Recall(zk, monotonic=monotonic)
        self._name = name
        self._metrics = metrics
        self._wake = wake
        self._monotonic = monotonic
        self._wall = wall
        self._election = Election(zk, name)
        self._stalls = Stalls()
        self._lifetimes = Lifetimes()
        self._pruner = Pruner(zk, monotonic=monotonic)
        self._known: set[str] = set()
        self._laid_out: int | None = None
        self._entered: dict[str, tuple[int, RolloutState, float]] = {}
        self._step_began: dict[str, tuple[int, int, float]] = {}
        self._away: dict[tuple[str, str], float] = {}

    def cycle(self) -> str:
        if not self._zk.connected:
            raise ZooKeeperTrouble(f"no connection to ZooKeeper at {self._zk.address}: nothing moves")
        try:
            fence = self._election.lead()
        except Conflict as e:
            raise ZooKeeperTrouble(f"another replica takes the lead: {e}") from e
        self._metrics.leading(fence is not None)
        if fence is None:
            self._forget(frozenset())
            return f"standing by: {self._election.leader} leads"
        self._lay_out(fence)
        services = self._zk.children(paths.SERVICES)
        self._forget(frozenset(services))
        said = {s: self._drive(s, fence) for s in services}
        self._pruner.prune(fence, services)
        return Said({"": "leading", **said} if said else {"": "leading; no service is configured"})

    def _lay_out(self, fence: int) -> None:
        """Once in a lead: what others write below must be there, as they may not be allowed to make it."""
        if self._laid_out == fence:
            return
        self._recall = Recall(self._zk, monotonic=self._monotonic)  # others led meanwhile, and wrote what it knows
        for path in paths.TOP:
            self._zk.ensure(path)
        if not self._zk.protected("/"):
            _log.warning("ZooKeeper still takes writes from anybody who reaches it: run `pinrail barrier secure`")
        self._laid_out = fence

    def _forget(self, remaining: frozenset[str]) -> None:
        for service in self._known - remaining:
            self._metrics.forget(service)
            log.belongs(service, None)
            self._stalls.forget(service)
            self._lifetimes.keep(remaining)
            self._entered.pop(service, None)
            self._step_began.pop(service, None)
        self._away = {k: t for k, t in self._away.items() if k[0] in remaining}
        self._known &= remaining

    # -- one service --

    def _drive(self, service: str, fence: int) -> str:
        """Take all steps that can be taken now; the sentence about where that ended."""
        try:
            for _ in range(STEPS_AT_ONCE):
                snap = snapshot.read(self._zk, self._recall, service, watch=True)
                if snap is None:
                    return f"{service} is not configured"
                self._known.add(service)
                log.belongs(service, snap.rollout.number if snap.rollout else None)
                try:
                    sentence = self._advance(snap, fence)
                except Conflict as e:
                    _log.info(f"{service}: read again: {e}", service=service)
                    self._election.doubt()
                    if self._election.lead() != fence:
                        self._wake()
                        return f"{service}: no longer leading"
                    continue
                if sentence is not None:
                    return sentence
        except BadPayload as e:
            _log.warning(str(e), service=service)
            return f"{service}: {e}"
        self._wake()
        return f"{service}: more to do"

    def _advance(self, snap: Snapshot, fence: int) -> str | None:
        """One transaction at most. None: something was written, look again."""
        missing: tuple[Missing, ...] = ()
        if over := self._lifetimes.over(snap.service, snap.plan, self._monotonic()):
            plan = plans.unpreview(snap.plan, over).model_copy(update={"updated_by": self._name})
            self._commit(fence, [_put(paths.plan(snap.service), plan.encode(), snap.plan_version)])
            _log.info(f"{snap.service}: {len(over)} previews are over", service=snap.service, epoch=plan.epoch)
            return None
        if snap.lock_version is None and snap.queue is not None:
            self._commit(fence, queue.begin(snap))
            return None
        if (rollout := snap.rollout) is not None:
            if rollout.done and rollout.request is None:
                self._commit(fence, self._unlock(snap))
                return None
            view = self._view(snap, rollout)
            outcome = machine.decide(view, at=self._wall(), by=self._name, seconds=self._seconds(rollout))
            if outcome.step is not None:
                self._write(snap, outcome.step, fence)
                return None
            missing = outcome.missing
            stalled = self._stalls.reasons(view, missing, self._monotonic())
            if self._stalls.given_up(view, self._monotonic()) and (remedy := remedies.find(view, missing)):
                stall_policy.carry_out(self._zk, snap, rollout, remedy, By(self._name, "leader", remedy.why), fence)
                self._wake()  # the roster may be another one now, and is read at the beginning of a cycle
                return f"{snap.service}: the stall policy acts: {remedy.why}"
            if stalled != rollout.stalled:
                self._write_stalled(snap, rollout.model_copy(update={"stalled": stalled}), fence)
                return None
            self._metrics.rollout(rollout)
        self._metrics.plan(snap.service, snap.plan)
        self._metrics.missing(snap.service, missing)
        if self._give_turns(snap, fence):
            return None
        return _sentence(snap, missing)

    def _view(self, snap: Snapshot, rollout: Rollout) -> View:
        now = self._monotonic()
        percent = snap.plan.ramp.percent if snap.plan.ramp else 0  # not the epoch: a preview changes that too
        began = self._step_began.get(snap.service)
        if began is None or began[:2] != (rollout.number, percent):
            began = self._step_began[snap.service] = (rollout.number, percent, now)
        hosts = snap.hosts_of("default")
        return View(
            rollout=rollout,
            config=snap.config,
            plan=snap.plan,
            enabled=snap.enabled,
            edges=snap.edges,
            hosts=hosts,
            turns=snap.turns,
            members=snap.members,
            missed=snap.missed_of("default"),
            held=not isinstance(rollout.hold, str) and now - began[2] >= rollout.hold,
            lost=self._lost(snap, now),
        )

    def _lost(self, snap: Snapshot, now: float) -> frozenset[str]:
        """Hosts that hold a turn and have been away, or down after it was done, for a while."""
        absent = {(snap.service, n) for n in snap.missed}
        self._away = {k: t for k, t in self._away.items() if k[0] != snap.service or k in absent}
        for key in absent:
            self._away.setdefault(key, now)
        return frozenset(n for s, n in absent if now - self._away[s, n] >= LOST_SECONDS)

    def _seconds(self, rollout: Rollout) -> float | None:
        """Since when it is in its state; None where another replica saw that begin, or it has been over since."""
        entered = self._entered.get(rollout.service)
        if rollout.done or entered is None or entered[:2] != (rollout.number, rollout.state):
            return None
        return round(self._monotonic() - entered[2], 3)

    # -- writing --

    def _commit(self, fence: int, ops: list[Op]) -> None:
        self._zk.commit([Check(paths.FENCE, fence), *ops])

    @staticmethod
    def _unlock(snap: Snapshot) -> list[Op]:
        assert snap.lock_version is not None  # noqa: S101  # a rollout is only read through its lock
        return [Delete(paths.active_rollout(snap.service), snap.lock_version)]

    def _write(self, snap: Snapshot, step: machine.Step, fence: int) -> None:
        service, rollout = snap.service, step.rollout
        ops: list[Op] = [Set(paths.rollout(service, rollout.number), rollout.encode(), snap.rollout_version)]
        if step.plan is not None:
            ops.append(_put(paths.plan(service), step.plan.encode(), snap.plan_version))
        if step.enabled is not None:
            ops.append(_put(paths.enabled(service), step.enabled.encode(), snap.enabled_version))
        if rollout.done:
            ops += self._unlock(snap)
        self._commit(fence, ops)
        before = snap.rollout
        assert before is not None  # noqa: S101  # a step is a step of a rollout
        seconds = rollout.history[-1].seconds
        if seconds is not None and (before.state is not rollout.state or rollout.done):
            self._metrics.left(service, before.state, seconds)
        if before.state is not rollout.state or step.event == "step":
            self._entered[service] = (rollout.number, rollout.state, self._monotonic())
        self._stalls.forget(service)
        self._metrics.rollout(rollout)
        _log.info(
            f"{service}: rollout {rollout.number}: {rollout.history[-1].text}",
            service=service,
            rollout=rollout.number,
            build=rollout.build,
            epoch=rollout.history[-1].epoch,
            epoch_before=snap.plan.epoch,
            state=rollout.state.value,
        )

    def _write_stalled(self, snap: Snapshot, rollout: Rollout, fence: int) -> None:
        self._commit(fence, [Set(paths.rollout(snap.service, rollout.number), rollout.encode(), snap.rollout_version)])
        about = {"service": snap.service, "rollout": rollout.number}
        if rollout.stalled:
            _log.warning(f"{snap.service}: rollout {rollout.number} has stalled: {'; '.join(rollout.stalled)}", **about)
        else:
            _log.info(f"{snap.service}: rollout {rollout.number} moves again", **about)

    def _give_turns(self, snap: Snapshot, fence: int) -> bool:
        """Grant and revoke; True when anything was written."""
        granting = snap.rollout is None or snap.rollout.state is not RolloutState.PAUSED
        lost = self._lost(snap, self._monotonic())
        grant: dict[str, Turn] = {}
        revoke: list[str] = []
        for role in ("default", *snap.roles):
            enabled = snap.enabled_of(role)
            hosts = snap.hosts_of(role)
            changes = turns.decide(
                enabled.serial,
                hosts,
                _turns_of(role, snap, hosts),
                snap.config.waves,
                granting=granting,
                everyone=snap.plan.default is None,
                down=snap.down,
                lost=lost,
            )
            grant |= dict.fromkeys(changes.grant, Turn(serial=enabled.serial))
            revoke += [n for n in changes.revoke if n not in changes.grant]
        if not grant and not revoke:
            return False
        self._write_turns(snap, fence, grant, revoke)
        return True

    def _write_turns(self, snap: Snapshot, fence: int, grant: Mapping[str, Turn], revoke: Sequence[str]) -> None:
        """As many in a transaction as it takes. Each turn stands for itself: others may be written and these not."""
        service, below = snap.service, paths.turns(snap.service)
        self._zk.ensure(below)
        changes: list[tuple[str, Turn | None]] = [*((n, None) for n in revoke), *grant.items()]
        for first in range(0, len(changes), TURNS_AT_ONCE):
            some = changes[first : first + TURNS_AT_ONCE]
            ops = [self._turn(snap, name, turn) for name, turn in some]
            if snap.enabled_version is not None:
                ops.append(Check(paths.enabled(service), snap.enabled_version))
            self._commit(fence, ops)
            given = {name: turn for name, turn in some if turn is not None}
            self._recall.written(below, given, [name for name, turn in some if turn is None])
        if grant:
            named = ", ".join(sorted(grant)[:NAMED]) + (f" and {len(grant) - NAMED} more" if len(grant) > NAMED else "")
            serial = max(turn.serial for turn in grant.values())
            _log.info(f"{service}: their turn: {named}", service=service, serial=serial)

    @staticmethod
    def _turn(snap: Snapshot, name: str, turn: Turn | None) -> Op:
        path = paths.turn(snap.service, name)
        if turn is None:
            return Delete(path)
        return Set(path, turn.encode(), -1) if name in snap.turns else Create(path, turn.encode())


def _turns_of(role: str, snap: Snapshot, hosts: dict[str, HostStatus]) -> dict[str, Turn]:
    """A host that is away has no role to look at; its turn counts as one of the default role."""
    return {n: t for n, t in snap.turns.items() if n in hosts or (role == "default" and n not in snap.hosts)}


def _put(path: str, data: bytes, version: int | None) -> Op:
    return Create(path, data) if version is None else Set(path, data, version)


def _sentence(snap: Snapshot, missing: tuple[Missing, ...]) -> str:
    if snap.rollout is None:
        others = [v for v in snap.plan.serving if v != snap.plan.default]
        beside = f" and {', '.join(others)} beside it" if others else ""
        return f"{snap.service} serves {snap.plan.default or 'nothing'}{beside}"
    rollout = snap.rollout
    named = "; ".join(str(m) for m in missing[:5]) + ("; ..." if len(missing) > 5 else "")
    return f"{snap.service}: rollout {rollout.number} of {rollout.build} is {rollout.state.value} ({named})"
