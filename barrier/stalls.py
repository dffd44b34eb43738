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
    #: Somebody should have moved: it is not held or paused on purpose.
    stalls: bool = True


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

    def given_up(self, view: View, now: float) -> bool:
        """Whether it has waited for the service's ``give_up_seconds``, as ``reasons`` saw it last."""
        wait = self._waits.get(view.rollout.service)
        return wait is not None and wait.stalls and now - wait.since >= view.config.give_up_seconds

    def reasons(self, view: View, missing: Sequence[Missing], now: float) -> tuple[str, ...]:
        """What to put on the rollout now: the reasons once it has stalled, else nothing."""
        service, key = view.rollout.service, _key(view)
        wait = self._waits.get(service)
        if wait is None or wait.key != key or len(missing) < wait.fewest:
            wait = self._waits[service] = _Wait(key, len(missing), now)
        wait.stalls = view.rollout.state not in _AT_REST and any(m.who != "ramp" for m in missing)
        if not wait.stalls or now - wait.since < view.config.stall_seconds:
            return ()
        return tuple(str(m) for m in missing[:REASONS_KEPT])
