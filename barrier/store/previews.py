"""Previews: tokens that get one version, issued and revoked. A change of the plan, also while a rollout is active.

A preview bends no rollout: its own version is left alone, and who waits for edges waits for the newer epoch.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

from barrier import plans
from barrier.snapshot import Snapshot
from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from fleet import paths
from fleet.model import Plan, Preview
from fleet.zk import Check, Conflict, Op, Set, ZooKeeperTrouble


def name(preview: Preview) -> str:
    """What it is called where the token itself must not be said."""
    return hashlib.sha256(preview.token.encode()).hexdigest()[:10]


def create(store: Store, service: str, version: str, seconds: float, by: By) -> tuple[Preview, Plan]:
    """A new token, which nobody can guess. Refused where no host runs that version."""
    made = Preview(
        version=version,
        token=f"preview-{secrets.token_urlsafe(24)}",
        expires=time.time() + seconds,
        seconds=seconds,
        by=by.name,
    )

    def add(snap: Snapshot) -> Plan:
        canary = {b.build for e in snap.roles.values() for b in e.builds}
        there = [*snap.plan.serving, *sorted(canary - set(snap.plan.serving))]
        if version not in there:
            known = ", ".join(there) or "nothing"
            raise Refused("conflict", f"no host runs {version}; there is {known}", versions=there)
        if snap.plan.mode == "mixed":
            raise Refused("conflict", f"{service} is deployed in place: a request cannot choose a version")
        return plans.preview(snap.plan, made)

    what = f"makes preview {name(made)} of {version} of {service} for {seconds:g} s"
    return made, _change(store, service, add, by, "preview", what, version)


def revoke(store: Store, service: str, called: str, by: By) -> Plan:
    """From the plan that is returned on, that token opens nothing. Refused where there is none of that name."""

    def drop(snap: Snapshot) -> Plan:
        found = [p.token for p in snap.plan.previews if name(p) == called]
        if not found:
            there = [name(p) for p in snap.plan.previews]
            raise Refused("unknown", f"{service} has no preview {called!r}", previews=there)
        return plans.unpreview(snap.plan, found)

    return _change(store, service, drop, by, "revoke", f"revokes preview {called} of {service}", None)


def _change(
    store: Store, service: str, change: Callable[[Snapshot], Plan], by: By, action: str, what: str, version: str | None
) -> Plan:
    for _ in range(TRIES):
        fence = store.zk.get(paths.FENCE, watch=False)
        snap = store.read(service)
        if fence is None or snap.plan_version is None:
            raise ZooKeeperTrouble("no replica of the barrier service has led yet: try again")
        after = change(snap).model_copy(update={"updated_by": by.name})
        ops: list[Op] = [Check(paths.FENCE, fence.version), Set(paths.plan(service), after.encode(), snap.plan_version)]
        epochs = {"epoch_before": snap.plan.epoch, "epoch_after": after.epoch}
        try:
            audit.commit(store.zk, ops, by, action, what, service=service, version=version, **epochs)
        except Conflict:
            continue
        return after
    raise ZooKeeperTrouble(f"the plan of {service} keeps changing under this request: try again")
