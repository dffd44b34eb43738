"""Does what a stall policy found: leaves the request, or evicts an edge, as an operator would have, and audited so."""

from __future__ import annotations

import time

from barrier.remedies import Remedy
from barrier.snapshot import Snapshot
from barrier.store import audit
from barrier.store.audit import By
from fleet import paths
from fleet.model import Request, Rollout, RolloutEvent
from fleet.zk import Check, Delete, Op, Set, ZooKeeper


def carry_out(zk: ZooKeeper, snap: Snapshot, rollout: Rollout, remedy: Remedy, by: By, fence: int) -> None:
    """One transaction. Of several edges the first goes now: each eviction is an entry of its own. Raises Conflict."""
    service, number, epoch = snap.service, rollout.number, snap.plan.epoch
    edge, ops = None, list[Op]()
    if remedy.abort:
        action, what = "abort", f"aborts rollout {number} of {service}, which has stalled"
        request = Request(verb="abort", by=f"the stall policy of {service}", reason=remedy.why)
        after = rollout.model_copy(update={"request": request})
    else:
        edge = remedy.evict[0]
        action, what = "evict", f"evicts {edge}, which rollout {number} of {service} waits for"
        text = f"{edge} is evicted by the stall policy: {remedy.why}"
        happened = RolloutEvent(at=time.time(), state=rollout.state, text=text, epoch=epoch)
        after = rollout.model_copy(update={"history": (*rollout.history, happened)})
        ops.append(Delete(paths.rostered(edge)))
    ops += [Set(paths.rollout(service, number), after.encode(), snap.rollout_version), Check(paths.FENCE, fence)]
    facts = {"service": service, "rollout": number, "version": rollout.build, "edge": edge, "epoch_before": epoch}
    audit.commit(zk, ops, by, action, what, **facts)
