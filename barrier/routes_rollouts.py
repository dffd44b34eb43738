"""Endpoints about rollouts: begin one, look at it, follow it, ask something of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse, ServerSentEvent

from barrier import view
from barrier.bodies import NewRollout, NewVerdict, RolloutView, Waiting, Why
from barrier.context import Api, Beginner, Connected, Deployer, Reader
from barrier.problems import Problem
from barrier.routing import Route
from barrier.snapshot import Snapshot
from barrier.store import Refused, rollouts, verdicts
from fleet.model import Rollout, RolloutState
from fleet.names import Service

router = APIRouter(prefix="/v1/services/{service}/rollouts", tags=["rollouts"], route_class=Route)

#: Rollouts in one answer: those that are kept, and a few that could not go yet.
MOST = 2 * rollouts.KEPT
#: Names of builds that a 404 lists.
LISTED = 20
#: Seconds, at most, for which news is gathered before a stream looks again: as many as the last look took. With
#: thousands of hosts something changes all the time, and each look is work.
REST_SECONDS = 0.5


def waiting(snap: Snapshot, rollout: Rollout) -> list[Waiting]:
    """Who the active rollout waits for at this moment, as the leader sees it."""
    looked = view.View(
        rollout=rollout,
        config=snap.config,
        plan=snap.plan,
        enabled=snap.enabled,
        edges=snap.edges,
        hosts=snap.hosts_of("default"),
        turns=snap.turns,
        members=snap.members,
        missed=snap.missed_of("default"),
    )
    return [Waiting(who=m.who, why=m.why) for m in view.observe(looked).missing]


def _look(api: Api, service: str, number: int, *, watch: bool = False) -> RolloutView:
    rollout = api.store.rollout(service, number, watch=watch)
    if rollout is None:
        api.store.head(service)  # an unknown service is said first
        raise Refused("unknown", f"{service} has no rollout {number}", rollouts=api.store.numbers(service)[-LISTED:])
    if rollout.done:
        return _view(rollout, [])
    if rollout.state is RolloutState.QUEUED:
        return _queued(api, rollout)
    snap = api.store.read(service, watch=watch)
    if snap.rollout is None or snap.rollout.number != number:
        return _view(rollout, [])
    return _view(snap.rollout, waiting(snap, snap.rollout))


def _queued(api: Api, rollout: Rollout) -> RolloutView:
    """It has not begun: it waits for another rollout, or for the leader to look, and for no host and no edge."""
    active = api.store.head(rollout.service).rollout
    if active is None or active.number == rollout.number:
        return _view(rollout, [])
    return _view(rollout, [Waiting(who=f"rollout {active.number}", why=f"of {active.build} is {active.state.value}")])


def _view(rollout: Rollout, missing: list[Waiting]) -> RolloutView:
    return RolloutView(**{f: getattr(rollout, f) for f in Rollout.model_fields}, missing=missing)


@router.post("", status_code=201, responses={200: {"model": RolloutView, "description": "Begun before, with that key"}})
def begin(
    service: Service,
    body: NewRollout,
    api: Connected,
    who: Beginner,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> RolloutView:
    """Begin a rollout. Where one is active: 409 with it, or it waits for that (``when_busy``); the same
    Idempotency-Key gives the same rollout.
    """
    snap = api.store.head(service)
    if body.ramp and snap.config.strategy == "inplace":
        raise Problem(422, f"{service} is deployed in place: there is no second version to ramp to")
    manifest = api.builds.manifest(service, body.build)
    if manifest is None:
        known = api.builds.names(service)[-LISTED:]
        there = f"there are {', '.join(known)}" if known else "none has been published"
        raise Problem(404, f"{service} has no build {body.build}: {there}", builds=known)
    wanted = Rollout(
        number=1,
        service=service,
        build=body.build,
        digest=manifest.digest,
        by=who.name,
        reason=body.reason,
        ramp=body.ramp,
        hold=body.hold,
        idempotency_key=idempotency_key,
    )
    rollout, made = rollouts.begin(api.store, wanted, who.because(body.reason), expected_epoch=body.expected_epoch)
    response.headers["location"] = f"/v1/services/{service}/rollouts/{rollout.number}"
    response.status_code = 201 if made else 200
    return _queued(api, rollout) if made else _look(api, service, rollout.number)


@router.get("")
def list_rollouts(
    service: Service, api: Connected, _: Reader, last: Annotated[int, Query(ge=1, le=MOST)] = 50
) -> list[Rollout]:
    """The last rollouts, newest first."""
    api.store.head(service)
    return api.store.rollouts(service, last)


@router.get("/{number}")
def get_rollout(service: Service, number: int, api: Connected, _: Reader) -> RolloutView:
    """One rollout, and who it waits for right now."""
    return _look(api, service, number)


@router.get(
    "/{number}/events",
    response_class=StreamingResponse,
    responses={200: {"description": "The events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    service: Service,
    number: int,
    api: Connected,
    _: Reader,
    last_event_id: Annotated[int, Header(ge=-1)] = -1,
) -> EventSourceResponse:
    """The history as server-sent events, from the beginning or after Last-Event-ID; ends with the rollout.

    Events: the new state with its RolloutEvent (these have ids), ``missing`` with who is waited for, and ``done``.
    """
    first = await to_thread.run_sync(lambda: _look(api, service, number))
    return EventSourceResponse(_follow(api, first, last_event_id + 1), ping=15)


async def _follow(api: Api, first: RolloutView, index: int) -> AsyncIterator[ServerSentEvent]:
    service, number, said = first.service, first.number, ""
    while not api.hub.closed:
        moment, began = api.hub.now(), time.monotonic()
        now = await to_thread.run_sync(lambda: _look(api, service, number, watch=True))
        took = time.monotonic() - began
        while index < len(now.history):
            event = now.history[index]
            yield ServerSentEvent(event.model_dump_json(), event=event.state.value, id=str(index))
            index += 1
        missing = f"[{','.join(m.model_dump_json() for m in now.missing)}]"
        if missing != said and not now.done:
            said = missing
            yield ServerSentEvent(missing, event="missing")
        if now.done and now.request is None:
            yield ServerSentEvent(f'{{"state":"{now.state.value}"}}', event="done")
            return
        await asyncio.sleep(min(took, REST_SECONDS))
        await api.hub.until(moment, 2.0)


@router.post("/{number}/verdict", status_code=202)
def verdict(service: Service, number: int, body: NewVerdict, api: Connected, who: Deployer) -> Rollout:
    """Say what comparing the versions came to, at the ramp's present step: pass goes on to the next, fail aborts the
    rollout, undecided is only written down. 409 where the rollout is not ramping, or not at that percentage.
    """
    api.store.head(service)
    return verdicts.give(api.store, service, number, body.verdict, who.because(body.reason), percent=body.percent)


@router.post("/{number}/{verb}", status_code=202)
def ask(
    service: Service,
    number: int,
    verb: Literal["pause", "resume", "abort", "rollback"],
    api: Connected,
    who: Deployer,
    body: Why | None = None,
) -> Rollout:
    """Ask it of the rollout; the leader takes it up at once. 409 where the rollout cannot do that now, or an abort
    that was asked before is still open.
    """
    api.store.head(service)
    return rollouts.ask(api.store, service, number, verb, who.because(body.reason if body else ""))
