"""What the page shows, for whoever wants the same: overviews, flip-flops, and both as one stream of events.

The stream carries whole views, not changes: whoever has the last event of each kind has everything, and one that was
lost is made good by the next. Its ids name what has been sent, so that a reader who comes back is not sent it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, TypeAdapter
from sse_starlette import EventSourceResponse, ServerSentEvent

from barrier.auth import Principal, Role
from barrier.context import Anyway, Api, Connected, Reader
from barrier.flips import FlipsView
from barrier.looks import Looks
from barrier.overview import Line, Overview
from barrier.problems import Problem
from barrier.routing import Route
from barrier.sampler import Sampler
from barrier.store import Refused
from fleet.loop import Trouble
from fleet.names import Service

router = APIRouter(prefix="/v1", tags=["page"], route_class=Route)

#: Streams of one replica that may be open at once.
MOST_STREAMS = 200
#: Seconds after which a stream says at the latest that what it sent still holds.
ALIVE_SECONDS = 2.0
#: Seconds for which changes are gathered before they are sent.
GATHER_SECONDS = 0.2

_LINES = TypeAdapter(list[Line])


class Viewers:
    """What the endpoints here share."""

    def __init__(self, api: Api, sampler: Sampler) -> None:
        self.sampler = sampler
        self.looks = Looks(api.store, api.hub)
        self._streams = 0

    def must_have_room(self) -> None:
        if self._streams >= MOST_STREAMS:
            raise Problem(503, f"{MOST_STREAMS} streams are open already", headers={"retry-after": "10"})

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


def _viewers(request: Request) -> Viewers:
    found: Viewers = request.app.state.viewers
    return found


Shared = Annotated[Viewers, Depends(_viewers)]


class Me(BaseModel):
    """Whose token it is and what that may do."""

    name: str
    role: Role
    #: Empty: all.
    services: list[str]


@router.get("/whoami")
def whoami(who: Reader) -> Me:
    """Whose token this is."""
    return Me(name=who.name, role=who.role, services=list(who.services))


@router.get("/overview")
async def get_overview(_: Connected, who: Reader, shared: Shared) -> list[Line]:
    """Every service that the token is good for, in a line."""
    return [line for line in await shared.looks.lines() if who.reaches(line.service)]


@router.get("/services/{service}/overview")
async def get_service_overview(service: Service, _: Connected, __: Reader, shared: Shared) -> Overview:
    """One service at one glance: plan, versions, edges, hosts, barriers, rollout."""
    return await shared.looks.service(service)


@router.get("/services/{service}/flips")
async def get_flips(service: Service, api: Connected, _: Reader, shared: Shared) -> FlipsView:
    """The flip-flops of the last hour, as this replica has collected them from the edges."""
    await shared.looks.service(service)
    return shared.sampler.view(service)


@router.get("/services/{service}/builds")
def get_builds(service: Service, api: Connected, _: Reader) -> list[str]:
    """The builds that have been published."""
    api.store.head(service)
    return api.builds.names(service)


@dataclass
class _Seen:
    """What a reader has: digests of the two views, and how far it is in the flip-flops."""

    services: str = ""
    service: str = ""
    window: str = ""
    next: int = 0

    @classmethod
    def of(cls, identity: str) -> _Seen:
        parts = identity.split("/")
        if len(parts) != 4 or not parts[3].isdigit():
            return cls()
        return cls(parts[0], parts[1], parts[2], int(parts[3]))

    def __str__(self) -> str:
        return f"{self.services}/{self.service}/{self.window}/{self.next}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@router.get("/overview/events")
async def events(
    request: Request,
    api: Anyway,
    _: Reader,
    shared: Shared,
    service: Annotated[Service | None, Query()] = None,
    last_event_id: Annotated[str, Header(max_length=200)] = "",
) -> EventSourceResponse:
    """All of the above as server-sent events, for as long as the token is good and the service is there.

    ``services``, ``service`` and ``flips`` when they change; ``live`` every two seconds at least, when what was sent
    still holds; ``trouble`` when nobody can know; ``refused`` at the end.
    """
    header = request.headers.get("authorization")

    def who() -> Principal:
        found = api.tokens.identify(header, "read")
        if service is not None:
            found.must_reach(service)
        return found

    shared.must_have_room()
    who()
    stream = _follow(api, shared, who, service, _Seen.of(last_event_id))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return EventSourceResponse(stream, ping=15, headers=headers)


async def _follow(
    api: Api, shared: Viewers, who: Callable[[], Principal], service: str | None, seen: _Seen
) -> AsyncIterator[ServerSentEvent]:
    with shared.watching():
        while not api.hub.closed:
            moment = api.hub.now()
            try:
                found = await _news(shared, who(), service, seen)
            except Trouble as e:
                found = [_event("trouble", json.dumps({"detail": str(e)}))]
            except (Problem, Refused) as e:
                yield _event("refused", json.dumps({"detail": str(e)}))
                return
            for event in found or [_event("live", "{}")]:
                yield event
            await asyncio.sleep(GATHER_SECONDS)
            await api.hub.until(moment, ALIVE_SECONDS)


def _event(name: str, data: str, seen: _Seen | None = None) -> ServerSentEvent:
    return ServerSentEvent(data, event=name, id=str(seen) if seen else None)


async def _news(shared: Viewers, who: Principal, service: str | None, seen: _Seen) -> list[ServerSentEvent]:
    """What the reader has not seen yet; ``seen`` is brought up to date."""
    found = []
    lines = [line for line in await shared.looks.lines() if who.reaches(line.service)]
    text = _LINES.dump_json(lines).decode()
    if seen.services != (digest := _digest(text)):
        seen.services = digest
        found.append(_event("services", text, seen))
    if service is None:
        return found
    text = (await shared.looks.service(service)).model_dump_json()
    if seen.service != (digest := _digest(f"{service} {text}")):
        seen.service = digest
        found.append(_event("service", text, seen))
    if (seen.window, seen.next) != (key := shared.sampler.key):
        view = shared.sampler.view(service, (seen.window, seen.next))
        seen.window, seen.next = key
        found.append(_event("flips", view.model_dump_json(exclude_defaults=True), seen))
    return found
