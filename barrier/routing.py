"""How every endpoint is called: parameters that nobody knows are refused, and a repeated call is done once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from anyio import to_thread
from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from barrier.problems import Problem
from barrier.store.once import Once


class Route(APIRoute):
    """For all routers of the API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = sorted(p.alias for p in get_flat_params(self.dependant) if isinstance(p.field_info, Query))

        async def handler(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in known]
            if unknown:
                there = f"there is {', '.join(known)}" if known else "there is none here"
                faults = [{"where": name, "what": "is not a known parameter"} for name in unknown]
                raise Problem(422, f"{unknown[0]}: is not a known parameter; {there}", errors=faults)
            call = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
            request.state.call = call + await request.body()
            response = await handle(request)
            once: Once | None = getattr(request.state, "once", None)
            if once is not None and response.status_code < 300:
                zk, body = request.app.state.api.store.zk, bytes(response.body)
                await to_thread.run_sync(lambda: once.answered(zk, response.status_code, body))
            return response

        return handler
