"""What every endpoint may use, and how it gets at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from barrier.auth import Principal, Role, Tokens
from barrier.builds import Builds
from barrier.hub import Hub
from barrier.metrics import Metrics
from barrier.problems import Problem
from barrier.store import Store


@dataclass(frozen=True)
class Api:
    store: Store
    tokens: Tokens
    builds: Builds
    metrics: Metrics
    hub: Hub


def _context(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


def _connected(request: Request) -> Api:
    api = _context(request)
    if not api.store.zk.connected:
        raise Problem(
            503, f"no connection to ZooKeeper at {api.store.zk.address}: nothing moves", headers={"retry-after": "2"}
        )
    return api


def needs(role: Role) -> Callable[..., Principal]:
    """A dependency: the caller's token must have ``role`` and, where the path names a service, be good for that."""

    def check(request: Request, authorization: Annotated[str | None, Header()] = None) -> Principal:
        who = _context(request).tokens.identify(authorization, role)
        if (service := request.path_params.get("service")) is not None:
            who.must_reach(service)
        return who

    return check


#: The API's context, whatever ZooKeeper does.
Anyway = Annotated[Api, Depends(_context)]
#: ... with a connection to ZooKeeper, else 503 at once.
Connected = Annotated[Api, Depends(_connected)]
Reader = Annotated[Principal, Depends(needs("read"))]
Deployer = Annotated[Principal, Depends(needs("deploy"))]
Admin = Annotated[Principal, Depends(needs("admin"))]
