"""What the leader throws away, so that ZooKeeper does not fill up: the audit's oldest entries, and old rollouts.

Little at once and seldom: it must never be what a rollout waits for. Every transaction checks the fence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from barrier.snapshot import BadPayload, lock_number, parse
from barrier.store import audit
from barrier.store.rollouts import KEPT
from fleet import log, paths
from fleet.model import Plan, Rollout, RolloutState
from fleet.zk import Check, Conflict, Delete, Node, Op, ZooKeeper

_log = log.get()

#: Seconds between two looks where the last one left nothing to do.
EVERY = 30.0
#: Znodes deleted in one transaction; one of the audit and one of each service in a cycle.
BATCH = 50
#: Old rollouts of a service looked at for those that can go; some of them may have to stay.
LOOKED_AT = 2 * BATCH


class Pruner:
    """Keeps the last ``entries`` of the audit and the last ``rollouts`` of each service."""

    def __init__(
        self,
        zk: ZooKeeper,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        entries: int = audit.KEPT,
        rollouts: int = KEPT,
    ) -> None:
        self._zk = zk
        self._monotonic = monotonic
        self._entries = entries
        self._rollouts = rollouts
        self._next = monotonic()

    def prune(self, fence: int, services: Sequence[str] = ()) -> bool:
        """A batch at most of each, if it is time; True when there is more, which the next call then takes at once."""
        if self._monotonic() < self._next:
            return False
        more = [self._audit(fence), *(self._service(s, fence) for s in services)]
        if not any(more):
            self._next = self._monotonic() + EVERY
        return any(more)

    def _audit(self, fence: int) -> bool:
        there = audit.names(self._zk)
        over = there[: max(0, len(there) - self._entries)]
        gone: list[Op] = [Delete(paths.audit(n)) for n in over[:BATCH]]
        keys = [paths.key(k) for k in audit.keys(self._zk, over[:BATCH])]
        gone += [Delete(path) for path in self._zk.get_many(keys)]
        return self._delete(gone, fence) and len(over) > BATCH

    def _service(self, service: str, fence: int) -> bool:
        numbers = sorted(int(n) for n in self._zk.children(paths.rollouts(service), watch=False) if n.isdigit())
        count = max(0, len(numbers) - self._rollouts)
        if not count:
            return False
        looked = [*numbers[: min(count, LOOKED_AT)], *numbers[count:]]
        nodes = self._zk.get_many([paths.rollout(service, n) for n in looked])
        plan = self._zk.get(paths.plan(service), watch=False)
        lock = self._zk.get(paths.active_rollout(service), watch=False)
        if plan is None:
            return False
        try:
            stay = {lock_number(lock, paths.active_rollout(service))} if lock else set()
            routing = parse(Plan, plan, paths.plan(service))
        except BadPayload:
            return False  # who drives the service says so
        there = _readable(service, looked, nodes)
        stay.add(max((n for n, r in there.items() if _can_be_rolled_back(r, routing)), default=0))
        over = [n for n, r in there.items() if n < numbers[count] and r.done and r.request is None and n not in stay]
        gone = [Delete(paths.rollout(service, n), nodes[paths.rollout(service, n)].version) for n in over[:BATCH]]
        ops: list[Op] = [Check(paths.plan(service), plan.version), *gone] if gone else []
        return self._delete(ops, fence) and len(over) > BATCH

    def _delete(self, ops: Sequence[Op], fence: int) -> bool:
        if not ops:
            return True
        try:
            self._zk.commit([Check(paths.FENCE, fence), *ops])
        except Conflict as e:  # something has changed in between, or another replica leads: the next look is a new one
            _log.info(f"nothing was pruned: {e}")
            return False
        return True


def _readable(service: str, numbers: Sequence[int], nodes: Mapping[str, Node]) -> dict[int, Rollout]:
    """What cannot be read nobody of us wrote, and so nobody of us removes it."""
    found = {}
    for number in numbers:
        path = paths.rollout(service, number)
        with contextlib.suppress(BadPayload):
            if path in nodes:
                found[number] = parse(Rollout, nodes[path], path)
    return found


def _can_be_rolled_back(rollout: Rollout, plan: Plan) -> bool:
    switched = rollout.state is RolloutState.SWITCHED and rollout.build == plan.default
    return switched and rollout.previous is not None and rollout.previous in plan.serving
