"""The page itself, for people: static, public, the same for everyone. What it shows it asks of the API, with a token.

The answers forbid everything that the page does not need: scripts and styles from here only, none inline, no frames,
no forms, no referrer; and a browser that knows Trusted Types refuses to make markup of a string.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from barrier.page import files
from barrier.problems import Problem

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Asked for anew each time, which costs a 304: page and API are of one version.
    "cache-control": "no-cache",
}


def _answer(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None:
        raise Problem(404, f"there is no {request.url.path}")
    headers = _HEADERS | {"etag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.kind, headers=headers)


@router.get("/")
def page(request: Request) -> Response:
    return _answer(request, "index.html")


@router.get("/ui/{name}")
def part(request: Request, name: str) -> Response:
    return _answer(request, name)
