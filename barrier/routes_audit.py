"""The audit trail, to be looked at."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from barrier.context import Connected, Reader
from barrier.store import audit
from fleet.names import Service

router = APIRouter(prefix="/v1", tags=["audit"])


@router.get("/audit")
def get_audit(
    api: Connected,
    _: Reader,
    service: Annotated[Service | None, Query()] = None,
    last: Annotated[int, Query(ge=1, le=audit.KEPT)] = 50,
) -> list[audit.Entry]:
    """The last changes, newest first: of one service, which may be gone by now, or of all and of the edges."""
    return audit.last(api.store.zk, last, lambda e: service is None or e.service == service)
