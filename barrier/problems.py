"""Every error of the API as problem+json (RFC 9457): what is wrong, and what there is instead."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from barrier import kinds
from barrier.plans import PlanError
from barrier.store import Refused
from barrier.store.once import Once, Repeated
from fleet.config import faults
from fleet.loop import Trouble

MEDIA_TYPE = "application/problem+json"

_METHODS = ("GET", "POST", "PUT", "DELETE")
_STATUS = {"unknown": 404, "conflict": 409, "forbidden": 403}


class Problem(Exception):
    """An answer that is an error. ``extra`` members are added to the document."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.extra = extra

    def answer(self) -> JSONResponse:
        kind = kinds.of(self.status)
        title = kind.title if kind else "Error"
        body = {"type": kinds.uri(kind), "title": title, "status": self.status, "detail": self.detail} | self.extra
        return JSONResponse(body, self.status, self.headers, media_type=MEDIA_TYPE)


def slow_down(seconds: float, why: str) -> None:
    """Raises Problem, 429, where there are seconds to wait."""
    if seconds > 0:
        after = math.ceil(seconds)
        raise Problem(429, f"{why}: try again in {after} s", headers={"retry-after": str(after)})


def from_validation(errors: list[Any]) -> Problem:
    """Each fault with its place, the first ones in the sentence too."""
    found = faults(errors, "body")
    sentence = "; ".join(f"{where}: {what}" for where, what in found[:5])
    return Problem(422, sentence, errors=[{"where": where, "what": what} for where, what in found])


def _from_request(request: Request, errors: list[Any]) -> Problem:
    """A body that is no JSON, or does not say that it is, before its fields are looked at."""
    if errors and errors[0]["type"] == "json_invalid":
        why = errors[0].get("ctx", {}).get("error", "")
        return Problem(400, f"the body is not JSON: {why} at character {errors[0]['loc'][-1]}")
    said = request.headers.get("content-type", "")
    if any(tuple(e["loc"]) == ("body",) for e in errors) and "json" not in said:
        return Problem(415, f"send the body as JSON, with Content-Type: application/json (it says {said or 'nothing'})")
    return from_validation([e | {"loc": e["loc"][1:] or e["loc"]} for e in errors])  # less where it was looked for


def install(app: FastAPI) -> None:
    """All ways to fail end here; what is not named here is a bug and stays a plain 500."""

    @app.exception_handler(Problem)
    def _(_: Request, e: Problem) -> JSONResponse:
        return e.answer()

    @app.exception_handler(Refused)
    def _(_: Request, e: Refused) -> JSONResponse:
        return Problem(_STATUS[e.kind], str(e), **e.extra).answer()

    @app.exception_handler(Repeated)
    def _(request: Request, e: Repeated) -> Response:
        if Once.of("", "", request.state.call).call != e.done.call:
            return Problem(409, "that Idempotency-Key was used for another call: use a new one").answer()
        if e.done.status is None:
            lost = "that call has been made already, and its answer is not known (yet): look at what came of it"
            return Problem(409, lost).answer()
        media = "application/json" if e.done.answer else None
        return Response(e.done.answer, e.done.status, {"idempotent-replayed": "true"}, media)

    @app.exception_handler(PlanError)
    def _(_: Request, e: PlanError) -> JSONResponse:
        return Problem(409, str(e)).answer()

    @app.exception_handler(Trouble)
    def _(_: Request, e: Trouble) -> JSONResponse:
        return Problem(503, str(e), headers={"retry-after": "2"}).answer()

    @app.exception_handler(RequestValidationError)
    def _(request: Request, e: RequestValidationError) -> JSONResponse:
        return _from_request(request, list(e.errors())).answer()

    @app.exception_handler(HTTPException)
    def _(request: Request, e: HTTPException) -> JSONResponse:
        return _from_framework(request, e).answer()


def _from_framework(request: Request, e: HTTPException) -> Problem:
    """What was refused before any endpoint was asked."""
    if e.status_code == 404:
        return Problem(404, f"there is no {request.url.path}")
    if e.status_code == 405:
        allow = ", ".join(m for m in _METHODS if _leads_somewhere(request, m))
        return Problem(405, f"{request.url.path} has {allow}, not {request.method}", headers={"allow": allow})
    if e.status_code == 400:
        return Problem(400, "the body cannot be read: send JSON in UTF-8, and not thousands of levels deep")
    return Problem(e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)


def _leads_somewhere(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
