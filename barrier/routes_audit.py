"""The audit trail, to be looked at."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from barrier.context import Connected, Reader
from barrier.routing import Route
from barrier.store import audit
from fleet.names import Service

router = APIRouter(prefix="/v1", tags=["audit"], route_class=Route)


@router.get("/audit")
def get_audit(
    api: Connected,
    who: Reader,
    service: Annotated[Service | None, Query()] = None,
    last: Annotated[int, Query(ge=1, le=audit.KEPT)] = 50,
) -> list[audit.Entry]:
    """The last changes, newest first: of one service, gone or not, or of all that the token is for."""
    if service is not None:
        who.must_reach(service)

    def wanted(entry: audit.Entry) -> bool:
        return entry.service == service if service is not None else entry.service is None or who.reaches(entry.service)

    found = audit.last(api.store.zk, last, wanted)
    about = {(e.service, e.rollout) for e in found if e.service is not None and e.rollout is not None}
    return audit.led_to(found, api.store.reached(about))
