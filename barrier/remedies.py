"""What the service's own policy does about a rollout that has stalled for too long. Pure: the controller has the clock.

An edge is evicted only where its agent is gone, and never more of them than half of the roster: a network that keeps
the barrier service from its edges must not decide what users get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from barrier import machine
from barrier.predicates import Missing, names
from barrier.view import View


@dataclass(frozen=True)
class Remedy:
    """``abort``, or the edges to evict; ``why`` is what people are told."""

    why: str
    abort: bool = False
    evict: tuple[str, ...] = ()


def find(view: View, missing: Sequence[Missing]) -> Remedy | None:
    """What is to be done now that ``give_up_seconds`` are over; None where the policy has nothing for it."""
    policy, rollout, edges = view.config.when_stalled, view.rollout, view.edges
    said = "; ".join(map(str, missing[:5])) + ("; ..." if len(missing) > 5 else "")
    why = f"no progress for {view.config.give_up_seconds:g} s: {said}"
    if rollout.request is not None and rollout.request.verb != "resume":
        return None  # it is about to be answered; but a ``resume`` in a ramp waits for the same edges
    if policy == "abort" and machine.allowed(rollout.state, "abort"):
        return Remedy(why, abort=True)
    if policy == "evict":
        gone = tuple(sorted(names(missing) & set(edges.roster) - edges.alive))
        if gone and 2 * len(gone) <= len(edges.roster):
            return Remedy(why, evict=gone)
    return None
