"""What every endpoint may use, and how it gets at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Header, Request

from barrier.auth import Principal, Role, Tokens
from barrier.builds import Builds
from barrier.config import REQUESTS_PER_SECOND
from barrier.hub import Hub
from barrier.metrics import Metrics
from barrier.problems import Problem, slow_down
from barrier.rates import Rates
from barrier.store import Store
from barrier.store.once import Once
from fleet import log


@dataclass(frozen=True)
class Api:
    store: Store
    tokens: Tokens
    builds: Builds
    metrics: Metrics
    hub: Hub
    rates: Rates = field(default_factory=lambda: Rates.of(REQUESTS_PER_SECOND))


_log = log.get()


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


def _identify(request: Request, authorization: str | None, role: Role) -> Principal:
    """Raises Problem: 401, 403, and 429 where somebody asks too often, or tries tokens."""
    api = _context(request)
    address = request.client.host if request.client else ""
    slow_down(api.rates.guesses.wait(address), f"too many unknown tokens from {address}")
    try:
        who = api.tokens.identify(authorization, role)
    except Problem as e:
        if e.status == 401 and authorization:
            api.rates.guesses.take(address)
        raise
    slow_down(api.rates.tokens.take(who.name), f"too many requests with the token of {who.name}")
    return who


def needs(role: Role) -> Callable[..., Principal]:
    """A dependency: the caller's token must have ``role`` and, where the path names a service, be good for that."""

    def check(request: Request, authorization: Annotated[str | None, Header()] = None) -> Principal:
        try:
            who = _identify(request, authorization, role)
            if (service := request.path_params.get("service")) is not None:
                who.must_reach(service)
        except Problem as e:
            if e.status in (401, 403):
                address = request.client.host if request.client else ""
                _log.info(f"refused: {e.detail}", address=address, method=request.method, path=request.url.path)
            if request.method != "GET":
                _context(request).metrics.refused(e.status)
            raise
        return who

    return check


def changes(role: Role) -> Callable[..., Principal]:
    """The same for a call that changes something: with an Idempotency-Key it is done once, and repeated freely."""
    allowed = needs(role)

    def check(
        request: Request,
        authorization: Annotated[str | None, Header()] = None,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    ) -> Principal:
        who = allowed(request, authorization)
        if idempotency_key is None:
            return who
        once = Once.of(who.name, idempotency_key, request.state.call)
        once.must_be_first(_connected(request).store.zk)
        request.state.once = once
        return replace(who, once=once)

    return check


#: The API's context, whatever ZooKeeper does.
Anyway = Annotated[Api, Depends(_context)]
#: ... with a connection to ZooKeeper, else 503 at once.
Connected = Annotated[Api, Depends(_connected)]
Reader = Annotated[Principal, Depends(needs("read"))]
Deployer = Annotated[Principal, Depends(changes("deploy"))]
Admin = Annotated[Principal, Depends(changes("admin"))]
#: For the call whose key is kept elsewhere.
Beginner = Annotated[Principal, Depends(needs("deploy"))]
