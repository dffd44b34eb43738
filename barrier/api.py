"""The HTTP API, assembled: routes, errors, health and metrics. ``/openapi.json`` describes it, ``/docs`` shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from barrier import (
    bodies,
    description,
    kinds,
    problems,
    routes_audit,
    routes_nodes,
    routes_overview,
    routes_page,
    routes_previews,
    routes_rollouts,
    routes_services,
)
from barrier.context import Anyway, Api
from barrier.limits import BodyLimit, OpenLimit
from barrier.problems import MEDIA_TYPE, Problem
from barrier.routes_overview import Viewers
from barrier.sampler import EVERY, Sampler
from fleet import log
from fleet.loop import Trouble

_log = log.get()

_PROBLEM = {"model": bodies.Problem, "content": {MEDIA_TYPE: {}}}


def _end_on_crash(task: asyncio.Task[None]) -> None:
    """A bug in what runs beside the requests ends the process as one in the controller does."""
    if not task.cancelled() and (crash := task.exception()) is not None:
        _log.error("the sampler of flip-flops has crashed", exc_info=crash)
        task.get_loop().stop()


def create(api: Api, *, sample_every: float = EVERY) -> FastAPI:
    """The application. ``api.hub`` is attached to the event loop that serves it."""
    sampler = Sampler(api.store, api.hub, every=sample_every)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        api.hub.attach(asyncio.get_running_loop())
        sampling = asyncio.create_task(sampler.run(), name="sampler")
        sampling.add_done_callback(_end_on_crash)
        yield
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        api.hub.attach(None)

    app = FastAPI(
        title="Pinrail",
        description="Drives rollouts through barriers. Errors are RFC 9457 problem documents.",
        version="1",
        lifespan=lifespan,
        responses={"4XX": _PROBLEM, "503": _PROBLEM},
    )
    app.state.api = api
    app.state.viewers = Viewers(api, sampler)
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(OpenLimit, rate=api.rates.addresses)
    for routes in (
        routes_page,
        routes_overview,
        routes_services,
        routes_rollouts,
        routes_previews,
        routes_nodes,
        routes_audit,
    ):
        app.include_router(routes.router)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = description.complete(made)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]

    @app.get("/problems", tags=["problems"], response_class=PlainTextResponse)
    async def problem_kinds() -> str:
        """Every kind of problem there is."""
        return "\n\n".join(f"{kinds.uri(k)}\n{kinds.text(k)}" for k in kinds.KINDS)

    @app.get("/problems/{kind}", tags=["problems"], response_class=PlainTextResponse)
    async def problem_kind(kind: str) -> str:
        """What a problem of that ``type`` means, and what to do about it."""
        found = kinds.named(kind)
        if found is None:
            raise Problem(404, f"there is no problem {kind!r}", kinds=[k.name for k in kinds.KINDS])
        return kinds.text(found)

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

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    def metrics(api: Anyway) -> Response:
        """What this replica counts, for Prometheus; the leading one has the rollouts."""
        return Response(api.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app
