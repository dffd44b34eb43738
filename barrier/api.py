"""The HTTP API, assembled: routes, errors, health and metrics. ``/openapi.json`` describes it, ``/docs`` shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from barrier import bodies, problems, routes_audit, routes_nodes, routes_rollouts, routes_services
from barrier.context import Anyway, Api
from barrier.limits import BodyLimit
from barrier.problems import MEDIA_TYPE, Problem
from fleet.loop import Trouble

_PROBLEM = {"model": bodies.Problem, "content": {MEDIA_TYPE: {}}}


def create(api: Api) -> FastAPI:
    """The application. ``api.hub`` is attached to the event loop that serves it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        api.hub.attach(asyncio.get_running_loop())
        yield
        api.hub.attach(None)

    app = FastAPI(
        title="Pinrail",
        description="Drives rollouts through barriers. Errors are RFC 9457 problem documents.",
        version="1",
        lifespan=lifespan,
        responses={"4XX": _PROBLEM, "503": _PROBLEM},
    )
    app.state.api = api
    problems.install(app)
    app.add_middleware(BodyLimit)
    for routes in (routes_services, routes_rollouts, routes_nodes, routes_audit):
        app.include_router(routes.router)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """This process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    def readyz(api: Anyway) -> dict[str, str]:
        """This process can do its work: ZooKeeper answers."""
        if not api.store.zk.connected:
            raise Problem(503, f"no connection to ZooKeeper at {api.store.zk.address}")
        try:
            leader = api.store.leader()
        except Trouble as e:
            raise Problem(503, str(e)) from e
        return {"status": "ok", "leader": leader or "nobody"}

    @app.get("/metrics", tags=["health"])
    def metrics(api: Anyway) -> Response:
        return Response(api.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app
