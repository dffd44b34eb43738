"""The kinds of problems that the API answers with; each has a page at ``/problems/KIND``. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """``name`` is the last part of the problem's ``type``; ``do`` is for whoever made the request."""

    status: int
    name: str
    title: str
    means: str
    do: str


KINDS: tuple[Kind, ...] = (
    Kind(
        400,
        "bad-request",
        "Bad request",
        "The request cannot be understood: its body is not JSON, or not even HTTP's rules are kept.",
        "Send what `/openapi.json` describes; `detail` says where reading ended.",
    ),
    Kind(
        401,
        "not-authenticated",
        "Not authenticated",
        "There is no bearer token, or nobody knows it. Tokens that were revoked are no longer known.",
        "Send `Authorization: Bearer TOKEN`; `pinrail token create` makes one.",
    ),
    Kind(
        403,
        "not-allowed",
        "Not allowed",
        "The token is known, and its role or its services do not reach that far.",
        "Use a token of the role, or for the service, that `detail` names. Of a token for some services "
        "`services` lists them.",
    ),
    Kind(
        404,
        "not-found",
        "Not found",
        "There is no such service, rollout, build, edge, barrier, preview or path.",
        "Compare with what there is: the problem lists it where it is known (`services`, `builds`, "
        "`rollouts`, `edges` ...).",
    ),
    Kind(
        405,
        "method-not-allowed",
        "Method not allowed",
        "The path is known, and nothing can be done to it by that method.",
        "Use one of the methods in the header `Allow`.",
    ),
    Kind(
        408,
        "too-slow",
        "Too slow",
        "The body of the request did not arrive in time. Nothing was changed.",
        "Send it again, in one piece.",
    ),
    Kind(
        409,
        "conflict",
        "Conflict with what is going on",
        "It cannot be done as things are: another rollout is active (`active`), the plan is at another epoch "
        "(`epoch`), not every edge is ready "
        "(`missing`), no host has what is offered (`registered`), an Idempotency-Key was used for something else. "
        "Nothing was changed.",
        "Look again and decide anew; a repetition of the same call helps only when what it conflicts with is over.",
    ),
    Kind(
        413,
        "too-large",
        "Too large",
        "The body has more than 1 MiB. Nothing was changed.",
        "Send less.",
    ),
    Kind(
        415,
        "not-json",
        "Not JSON",
        "The body does not say that it is JSON.",
        "Send `Content-Type: application/json`.",
    ),
    Kind(
        422,
        "invalid",
        "The request does not make sense",
        "A key or a parameter is not known, is missing, or has a value that cannot be. `errors` names each, "
        "with its place. Nothing was changed.",
        "Change what `errors` says.",
    ),
    Kind(
        429,
        "too-often",
        "Too often",
        "The token asks more often than `requests_per_second`, or the address has tried too many tokens that "
        "nobody knows.",
        "Wait for as many seconds as the header `Retry-After` says.",
    ),
    Kind(
        503,
        "not-available",
        "Not available now",
        "ZooKeeper or the object store does not answer this replica, or what lies there cannot be read. "
        "Traffic goes on as it was. Whether a "
        "change was made is not known.",
        "Try again after `Retry-After`, or another replica; with an Idempotency-Key that is safe.",
    ),
)
_BY_STATUS = {k.status: k for k in KINDS}
_BY_NAME = {k.name: k for k in KINDS}


def of(status: int) -> Kind | None:
    return _BY_STATUS.get(status)


def named(name: str) -> Kind | None:
    return _BY_NAME.get(name)


def uri(kind: Kind | None) -> str:
    """A reference that the service itself resolves."""
    return f"/problems/{kind.name}" if kind else "about:blank"


def text(kind: Kind) -> str:
    """The kind's own page."""
    return f"{kind.title} ({kind.status})\n\n{kind.means}\n\nWhat to do: {kind.do}\n"


def page() -> str:
    """All of them for people: ``docs/problems.md``."""
    rows = [f"| `{k.name}` | {k.status} | {k.title} | {k.means} | {k.do} |" for k in KINDS]
    return _PAGE.format(rows="\n".join(rows))


_PAGE = """\
# Problems

Written by `make docs` from the table in `barrier/kinds.py`; a test compares the two. Every error of the API is a
problem document (RFC 9457, `application/problem+json`): `type` is `/problems/KIND` on the service that answered, where
the same can be read; `title`; `status`; `detail`, one sentence for people about this very case; and what is known
beyond that, by the names below.

| kind | status | title | what it means | what to do |
|---|---|---|---|---|
{rows}
"""
