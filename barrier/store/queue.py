"""The rollout that waits for the active one: at most one, and the newest wins. Owns the znode that points to it.

Whoever takes its place, or the leader that begins it, names the version of that znode: one of them wins.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from barrier import machine
from barrier.snapshot import Head
from barrier.store.audit import By
from barrier.view import View
from fleet import paths
from fleet.model import Request, Rollout
from fleet.zk import Check, Create, Delete, Op, Set


def is_busy(snap: Head) -> bool:
    """A rollout is active, or another one is about to be."""
    return snap.lock_version is not None or snap.queue is not None


def put(snap: Head, number: int, by: By) -> list[Op]:
    """Rollout ``number`` waits; one that waited already is over."""
    path, data = paths.waiting_rollout(snap.service), str(number).encode()
    if snap.queue is None:
        ops: list[Op] = [Create(path, data)]
    else:
        ops = [Set(path, data, snap.queue.place)]
        if snap.queue.rollout is not None:
            ops.append(_over(snap, snap.queue.rollout, by, f"rollout {number} takes its place"))
    if snap.lock_version is not None:
        ops.append(Check(paths.active_rollout(snap.service), snap.lock_version))
    return ops


def cancel(snap: Head, by: By) -> list[Op]:
    """The waiting rollout is over before it began."""
    assert snap.queue is not None  # noqa: S101  # somebody has seen it wait
    assert snap.queue.rollout is not None  # noqa: S101
    place = Delete(paths.waiting_rollout(snap.service), snap.queue.place)
    return [place, _over(snap, snap.queue.rollout, by, by.reason)]


def begin(snap: Head) -> list[Op]:
    """It takes the lock, which is free."""
    assert snap.queue is not None  # noqa: S101
    service, rollout = snap.service, snap.queue.rollout
    ops: list[Op] = [Delete(paths.waiting_rollout(service), snap.queue.place)]
    if rollout is not None and not rollout.done:
        ops.append(Create(paths.active_rollout(service), str(rollout.number).encode()))
    return ops


def empty(service: str) -> Sequence[Op]:
    """Operations that fail, and the transaction with them, where a rollout waits."""
    path = paths.waiting_rollout(service)
    return [Create(path, b"0"), Delete(path)]


def _over(snap: Head, rollout: Rollout, by: By, why: str) -> Set:
    """By the machine's own table, as an active one would be."""
    assert snap.queue is not None  # noqa: S101
    asked = rollout.model_copy(update={"request": Request(verb="abort", by=by.name, reason=why)})
    step = machine.decide(View(asked, snap.config, snap.plan, snap.enabled), at=time.time(), by=by.name).step
    assert step is not None  # noqa: S101  # a request is always answered
    return Set(paths.rollout(snap.service, rollout.number), step.rollout.encode(), snap.queue.rollout_version)
