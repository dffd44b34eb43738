"""Begin rollouts and ask things of them. Owns the lock's taking; never plan or ``enabled``, which the leader writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from barrier import machine
from barrier.snapshot import Head, parse
from barrier.store import audit, queue
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.model import Plan, Request, Rollout, RolloutState
from fleet.zk import Check, Conflict, Create, Delete, Op, Set, ZooKeeperTrouble

Verb = Literal["pause", "resume", "abort", "rollback"]
#: Rollouts of a service that the leader lets stand; as many are searched for an idempotency key.
KEPT = 100


def unlocked(service: str) -> Sequence[Op]:
    """Operations that fail, and the transaction with them, where a rollout is active or waits."""
    lock = paths.active_rollout(service)
    return [Create(lock, b"0"), Delete(lock), *queue.empty(service)]


def begin(store: Store, wanted: Rollout, by: By, *, expected_epoch: int | None = None) -> tuple[Rollout, bool]:
    """Begin ``wanted`` under the next number, or let it wait where the service says so.

    True: made now, False: by that key before.
    """
    service = wanted.service
    for _ in range(TRIES):
        if (known := _known(store, wanted)) is not None:
            return known, False
        snap = store.head(service)
        busy = queue.is_busy(snap)
        if busy:
            _must_queue(store, snap, expected_epoch)
        store.must_be_at(service, snap.plan, expected_epoch)
        numbers = store.numbers(service)
        number = numbers[-1] + 1 if numbers else 1
        rollout = wanted.model_copy(update={"number": number, "strategy": snap.config.strategy})
        ops: list[Op] = [
            Create(paths.rollout(service, number), rollout.encode()),
        ]
        if busy:
            ops += queue.put(snap, number, by)
        else:
            ops += [Create(paths.active_rollout(service), str(number).encode()), *queue.empty(service)]
        if expected_epoch is not None and snap.plan_version is not None:
            ops.append(Check(paths.plan(service), snap.plan_version))
        try:
            audit.commit(
                store.zk,
                ops,
                by,
                "deploy",
                f"{'queues' if busy else 'begins'} rollout {number} of {service} to {wanted.build}",
                service=service,
                rollout=number,
                version=wanted.build,
                epoch_before=snap.plan.epoch,
            )
        except Conflict:
            continue
        return rollout, True
    raise ZooKeeperTrouble(f"the rollouts of {service} keep changing under this request: try again")


def _must_queue(store: Store, snap: Head, expected_epoch: int | None) -> None:
    """Raises Refused where a rollout that is asked for while another one is active cannot wait."""
    service = snap.service
    if snap.config.when_busy == "queue":
        if expected_epoch is None:
            return
        why = "what waits for it cannot expect an epoch, as that one changes the plan"
    else:
        why = "wait for it or abort it"
    active = snap.rollout or (snap.queue.rollout if snap.queue else None)
    number = active.number if active else store.active(service)
    raise Refused(
        "conflict",
        f"rollout {number} of {service} is active; {why}",
        active=active.model_dump(mode="json") if active else number,
    )


def _known(store: Store, wanted: Rollout) -> Rollout | None:
    if wanted.idempotency_key is None:
        return None
    for rollout in store.rollouts(wanted.service, KEPT):
        if (rollout.idempotency_key, rollout.by) != (wanted.idempotency_key, wanted.by):
            continue  # a key is its caller's own
        if (rollout.build, rollout.ramp, rollout.hold) != (wanted.build, wanted.ramp, wanted.hold):
            raise Refused(
                "conflict",
                f"that idempotency key began rollout {rollout.number} of {rollout.build}: use a new one",
                active=rollout.number,
            )
        return rollout
    return None


def ask(
    store: Store,
    service: str,
    number: int,
    verb: Verb,
    by: By,
) -> Rollout:
    """Leave a request on the rollout for the leader. Refused when the table holds no such transition, or when another
    request is open that does not give way.
    """
    for _ in range(TRIES):
        path = paths.rollout(service, number)
        node = store.zk.get(path, watch=False)
        if node is None:
            raise Refused("unknown", f"{service} has no rollout {number}", rollouts=store.numbers(service)[-20:])
        rollout = parse(Rollout, node, path)
        if store.waiting(service) == number and verb in ("abort", "rollback"):
            if (cancelled := _cancel(store, service, number, by)) is None:
                continue
            return cancelled
        more: list[Op] = []
        if rollout.done:
            _check_rollback(store, rollout, verb)
            more = [Create(paths.active_rollout(service), str(number).encode())]
        elif not machine.allowed(rollout.state, verb):
            hint = ": roll it back instead" if verb == "abort" and rollout.state is RolloutState.SWITCHED else ""
            raise Refused("conflict", f"rollout {number} is {rollout.state}: it cannot {verb}{hint}")
        if (asked := rollout.request) is not None and not machine.gives_way(asked, verb):
            raise Refused("conflict", f"{asked.by} has asked to {asked.verb} rollout {number}: wait until that is done")
        try:
            return ask_once(store, rollout, node.version, verb, by, store.plan(service), more)
        except Conflict:
            continue
    raise ZooKeeperTrouble(f"rollout {number} of {service} keeps changing under this request: try again")


def ask_once(
    store: Store, rollout: Rollout, version: int, verb: Verb, by: By, plan: Plan, more: Sequence[Op] = ()
) -> Rollout:
    """Leave the request on the rollout as it was read, together with ``more``. Raises Conflict."""
    service, number = rollout.service, rollout.number
    asked = rollout.model_copy(update={"request": Request(verb=verb, by=by.name, reason=by.reason)})
    audit.commit(
        store.zk,
        [Set(paths.rollout(service, number), asked.encode(), version), *more],
        by,
        verb,
        f"asks to {verb} rollout {number} of {service}",
        service=service,
        rollout=number,
        version=rollout.build,
        epoch_before=plan.epoch,
    )
    return asked


def _cancel(store: Store, service: str, number: int, by: By) -> Rollout | None:
    """The rollout that waited and is over now; None where it no longer waits, or not as it was read."""
    snap = store.head(service)
    if snap.queue is None or snap.queue.rollout is None or snap.queue.rollout.number != number:
        return None
    what = f"takes rollout {number} of {service} out of the queue"
    facts = {"service": service, "rollout": number, "version": snap.queue.rollout.build}
    try:
        audit.commit(store.zk, queue.cancel(snap, by), by, "abort", what, **facts, epoch_before=snap.plan.epoch)
    except Conflict:
        return None
    return store.rollout(service, number)


def _check_rollback(store: Store, rollout: Rollout, verb: str) -> None:
    service, number = rollout.service, rollout.number
    if verb != "rollback" or rollout.state is not RolloutState.SWITCHED:
        raise Refused("conflict", f"rollout {number} is over ({rollout.state}): it cannot {verb}")
    active = store.active(service)
    if active is not None:
        raise Refused("conflict", f"rollout {active} of {service} is active; wait for it or abort it", active=active)
    plan = store.head(service).plan
    previous = rollout.previous
    if plan.default != rollout.build:
        why = f"the default is {plan.default}, not {rollout.build}"
    elif previous is None:
        why = f"nothing was served before {rollout.build}"
    elif rollout.strategy == "inplace" or previous not in plan.serving or not store.registered(service, previous):
        why = f"{previous} is no longer running beside it; deploy it instead"
    else:
        return
    raise Refused("conflict", f"rollout {number} cannot be rolled back: {why}")
