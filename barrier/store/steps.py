"""Single steps on the plan, for jobs that drive them themselves while no rollout is active."""

from __future__ import annotations

from barrier import plans, predicates
from barrier.snapshot import Head, Snapshot
from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from barrier.store.rollouts import unlocked
from fleet import paths
from fleet.model import Plan
from fleet.zk import Check, Conflict, Set, ZooKeeperTrouble

_SAYS = {"withdraw": "withdraws", "offer": "offers", "stage": "stages", "default": "commits"}


def change(
    store: Store, service: str, operation: str, version: str, by: By, *, expected_epoch: int | None = None
) -> Plan:
    """One operation on the plan while no rollout is active; the plan that this made.

    The same fence and compare-and-set as the leader's writes: whoever leads, it has not read another plan.
    """
    for _ in range(TRIES):
        fence = store.zk.get(paths.FENCE, watch=False)
        snap = store.read(service) if operation == "default" else store.head(service)
        store.must_be_idle(service, "it drives the plan")
        store.must_be_at(service, snap.plan, expected_epoch)
        if fence is None or snap.plan_version is None:
            raise ZooKeeperTrouble("no replica of the barrier service has led yet: try again")
        if operation == "withdraw" and version not in snap.plan.serving:
            return _withdrawn(snap, version)
        if operation == "offer" and version not in snap.plan.serving:
            _must_run(store, service, version)
        after = _operate(snap, operation, version).model_copy(update={"updated_by": by.name, "rollout": None})
        write = Set(paths.plan(service), after.encode(), snap.plan_version)
        try:
            audit.commit(
                store.zk,
                [Check(paths.FENCE, fence.version), *unlocked(service), write],
                by,
                operation,
                f"{_SAYS[operation]} {version} of {service}",
                service=service,
                version=version,
                epoch_before=snap.plan.epoch,
                epoch_after=after.epoch,
            )
        except Conflict:
            continue
        return after
    raise ZooKeeperTrouble(f"the plan of {service} keeps changing under this request: try again")


def _withdrawn(snap: Head, version: str) -> Plan:
    """The plan as it is, where ``version`` was withdrawn before. Refused where it was never served."""
    if version in snap.plan.retired:
        return snap.plan
    served = ", ".join(snap.plan.serving) or "nothing"
    raise Refused("conflict", f"{version} is not served; what is: {served}", serving=list(snap.plan.serving))


def _must_run(store: Store, service: str, version: str) -> None:
    """Raises Refused where no host has registered ``version``: edges would acknowledge an offer of nothing."""
    if store.registered(service, version):
        return
    there = [v for v in store.zk.children(paths.serversets(service), watch=False) if store.registered(service, v)]
    said = ", ".join(there) or "nothing"
    sentence = f"no host has registered {version}: start it on hosts, then offer it; what is registered: {said}"
    raise Refused("conflict", sentence, registered=there)


def _operate(snap: Head, operation: str, version: str) -> Plan:
    match operation:
        case "withdraw":
            return plans.withdraw(snap.plan, [version])
        case "offer":
            return plans.offer(snap.plan, version)
        case "stage":
            return plans.stage(snap.plan, version)
    assert isinstance(snap, Snapshot), "whether edges are ready is what this one asks"  # noqa: S101
    if snap.plan.staged is None or snap.plan.staged.default != version:
        raise Refused("conflict", f"{version} is not staged: stage it first")
    registered = snap.members.get(version, 0)
    missing = predicates.ready(snap.edges, snap.plan.epoch, version, registered, snap.config.health.floor)
    if missing:
        shown = [{"edge": m.who, "why": m.why} for m in missing]
        raise Refused("conflict", "not every edge is ready: " + "; ".join(map(str, missing)), missing=shown)
    return plans.commit(snap.plan)
