"""What the leader throws away, so that ZooKeeper does not fill up: the audit's oldest entries.

Little at once and seldom: it must never be what a rollout waits for. Every transaction checks the fence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from barrier.store import audit
from fleet import log, paths
from fleet.zk import Check, Conflict, Delete, Op, ZooKeeper

_log = log.get()

#: Seconds between two looks where the last one left nothing to do.
EVERY = 30.0
#: Znodes deleted in one transaction; one for each of these in a cycle.
BATCH = 50


class Pruner:
    def __init__(
        self, zk: ZooKeeper, *, monotonic: Callable[[], float] = time.monotonic, entries: int = audit.KEPT
    ) -> None:
        self._zk = zk
        self._monotonic = monotonic
        self._entries = entries
        self._next = monotonic()

    def prune(self, fence: int) -> bool:
        """One batch at most, if it is time; True when there is more, which the next call then takes at once."""
        if self._monotonic() < self._next:
            return False
        more = self._audit(fence)
        if not more:
            self._next = self._monotonic() + EVERY
        return more

    def _audit(self, fence: int) -> bool:
        there = audit.names(self._zk)
        over = there[: max(0, len(there) - self._entries)]
        return self._delete([Delete(paths.audit(n)) for n in over[:BATCH]], fence) and len(over) > BATCH

    def _delete(self, ops: Sequence[Op], fence: int) -> bool:
        if not ops:
            return True
        try:
            self._zk.commit([Check(paths.FENCE, fence), *ops])
        except Conflict as e:  # something has changed in between, or another replica leads: the next look is a new one
            _log.info(f"nothing was pruned: {e}")
            return False
        return True
