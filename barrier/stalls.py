"""When waiting has become a stall: no progress for the service's ``stall_seconds``. Holds times that it is given.

Progress is a new state, epoch or serial, another step of a host that has not failed, or fewer missing than ever in
this wait; a reason whose words change is none.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from barrier.predicates import Missing
from barrier.view import View
from fleet.model import RolloutState

#: Reasons kept on a rollout; the API's barriers name everybody.
REASONS_KEPT = 20
#: States in which nothing is expected to happen by itself.
_AT_REST = frozenset({RolloutState.PAUSED})


@dataclass
class _Wait:
    key: Hashable
    fewest: int
    since: float


def _key(view: View) -> Hashable:
    rollout = view.rollout
    steps = tuple(sorted((n, h.step, h.serial) for n, h in view.hosts.items() if not h.error))
    return (rollout.number, rollout.state, view.plan.epoch, view.enabled.serial, steps)


class Stalls:
    """One wait per service."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    def forget(self, service: str) -> None:
        self._waits.pop(service, None)

    def reasons(self, view: View, missing: Sequence[Missing], now: float) -> tuple[str, ...]:
        """What to put on the rollout now: the reasons once it has stalled, else nothing."""
        service, key = view.rollout.service, _key(view)
        wait = self._waits.get(service)
        if wait is None or wait.key != key or len(missing) < wait.fewest:
            wait = self._waits[service] = _Wait(key, len(missing), now)
        held = all(m.who == "ramp" for m in missing)
        if held or view.rollout.state in _AT_REST or now - wait.since < view.config.stall_seconds:
            return ()
        return tuple(str(m) for m in missing[:REASONS_KEPT])
