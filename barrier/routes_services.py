"""Endpoints about services, their plans and barriers."""

from __future__ import annotations

import json
import re
import time
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Body, Query, Response
from pydantic import ValidationError

from barrier import predicates, snapshot
from barrier.bodies import BarrierView, EdgeMissing, Reason, ServiceLine, ServiceView, Version
from barrier.context import Admin, Connected, Deployer, Reader
from barrier.predicates import Missing
from barrier.problems import Problem, from_validation
from barrier.routing import Route
from barrier.snapshot import BadPayload, Snapshot
from barrier.store import services, steps
from fleet.model import Plan, ServiceConfig
from fleet.names import Service

router = APIRouter(prefix="/v1/services", tags=["services"], route_class=Route)

#: Why, where the body is something else.
QueryReason = Annotated[Reason, Query()]

_BARRIER = re.compile(r"(applied|staged|drained)-(\d{1,15})|healthy-(.+)")


@router.get("")
def list_services(api: Connected, who: Reader) -> list[ServiceLine]:
    """All configured services that the token is good for, and what they serve."""
    lines = []
    for name in filter(who.reaches, api.store.services()):
        try:
            plan, active = api.store.plan(name), api.store.active(name)
        except BadPayload as e:
            lines.append(ServiceLine(service=name, default=None, serving=[], epoch=0, rollout=None, trouble=str(e)))
            continue
        serving = list(plan.serving)
        lines.append(ServiceLine(service=name, default=plan.default, serving=serving, epoch=plan.epoch, rollout=active))
    return lines


@router.get("/{service}")
def get_service(service: Service, api: Connected, _: Reader) -> ServiceView:
    """One service: its configuration, its plan, what hosts must run, the active rollout."""
    snap = api.store.head(service)
    return ServiceView(
        service=service,
        config=snap.config,
        plan=snap.plan,
        enabled=snap.enabled,
        rollout=snap.rollout,
        queued=snap.queue.rollout if snap.queue else None,
        members=snapshot.members(api.store.zk, snap),
    )


@router.get("/{service}/plan")
def get_plan(service: Service, api: Connected, _: Reader) -> Plan:
    """What the edges route by."""
    return api.store.head(service).plan


@router.put("/{service}/config", responses={201: {"model": ServiceConfig, "description": "Made the service"}})
def put_config(
    service: Service,
    body: Annotated[dict[str, Any], Body()],
    api: Connected,
    who: Admin,
    response: Response,
    reason: QueryReason = "",
    expected_epoch: Annotated[int | None, Query(ge=0)] = None,
) -> ServiceConfig:
    """Configure a service; 201 when that made it. An unknown key is an error, and nothing is changed then.

    ``expected_epoch``: only if the service's plan still is at it; 0 for a service that must not exist yet.
    """
    try:
        config = ServiceConfig.model_validate_json(json.dumps(body), extra="forbid", strict=True)
    except ValidationError as e:
        raise from_validation(list(e.errors(include_url=False))) from e
    made = services.configure(
        api.store,
        service,
        config,
        who.because(reason),
        confined=bool(who.services),
        expected_epoch=expected_epoch,
    )
    response.status_code = 201 if made else 200
    return config


@router.delete("/{service}", status_code=204)
def delete_service(service: Service, api: Connected, who: Admin, reason: QueryReason = "") -> None:
    """Remove a service and everything known about it. Its hosts stop it, its edges no longer route to it."""
    services.remove(api.store, service, who.because(reason))


def _missing(snap: Snapshot, kind: str, number: int, version: str) -> tuple[Missing, ...]:
    match kind:
        case "applied":
            return predicates.applied(snap.edges, number)
        case "staged":
            return predicates.staged(snap.edges, number)
        case "drained":
            return predicates.drained(snap.edges, number)
    registered = snap.members.get(version, 0)
    return predicates.healthy(snap.edges, version, registered, snap.config.health.floor)


def barrier_view(snap: Snapshot, barrier: str) -> BarrierView:
    found = _BARRIER.fullmatch(barrier)
    if found is None:
        raise Problem(404, f"{barrier!r} is no barrier: applied-EPOCH, staged-EPOCH, drained-EPOCH or healthy-VERSION")
    kind, number, version = found.groups()
    if version is not None and version not in snap.plan.serving:
        raise Problem(404, f"{version} is not served", serving=list(snap.plan.serving))
    missing = _missing(snap, kind or "healthy", int(number or 0), version or "")
    if number is not None and int(number) > snap.plan.epoch:  # nothing is so yet, even without any edge
        missing = (Missing(snap.service, f"its plan has epoch {snap.plan.epoch}"), *missing)
    return BarrierView(
        id=barrier,
        epoch=snap.plan.epoch,
        met=not missing,
        missing=[EdgeMissing(edge=m.who, why=m.why) for m in missing],
    )


@router.get("/{service}/barriers/{barrier}")
async def get_barrier(
    service: Service,
    barrier: str,
    api: Connected,
    _: Reader,
    wait: Annotated[float, Query(ge=0, le=120)] = 0,
) -> BarrierView:
    """Is it so at every edge? With ``wait``: as soon as it is, or after that many seconds with who is missing."""
    deadline = time.monotonic() + wait
    while True:
        moment = api.hub.now()
        snap = await to_thread.run_sync(lambda: api.store.read(service, watch=wait > 0))
        view = barrier_view(snap, barrier)
        left = deadline - time.monotonic()
        if view.met or left <= 0:
            return view
        await api.hub.until(moment, min(left, 2.0))


def _changed(api: Connected, service: str, operation: str, body: Version, who: Deployer, kind: str) -> BarrierView:
    by = who.because(body.reason)
    after = steps.change(api.store, service, operation, body.version, by, expected_epoch=body.expected_epoch)
    return barrier_view(api.store.read(service), f"{kind}-{after.epoch}")


@router.post("/{service}/plan/withdraw")
def withdraw(service: Service, body: Version, api: Connected, who: Deployer) -> BarrierView:
    """For jobs that drive the steps themselves: no longer offer a version. Wait for the barrier before removing it."""
    return _changed(api, service, "withdraw", body, who, "drained")


@router.post("/{service}/plan/offer")
def offer(service: Service, body: Version, api: Connected, who: Deployer) -> BarrierView:
    """Offer a version beside the default, and stage it; refused while no host has registered it."""
    return _changed(api, service, "offer", body, who, "staged")


@router.post("/{service}/plan/stage")
def stage(service: Service, body: Version, api: Connected, who: Deployer) -> BarrierView:
    """Stage a served version as the next default."""
    return _changed(api, service, "stage", body, who, "staged")


@router.post("/{service}/plan/default")
def default(service: Service, body: Version, api: Connected, who: Deployer) -> BarrierView:
    """Commit the staged version as the default; refused while any edge is not ready for it."""
    return _changed(api, service, "default", body, who, "applied")
