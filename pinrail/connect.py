"""Where the barrier service is and what opens it: --dir, else $PINRAIL_URL and $PINRAIL_TOKEN, else the local fleet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pinrail.errors import CommandError
from pinrail.local import state

if TYPE_CHECKING:
    from pipeline.client import Client

Dir = Annotated[
    Path | None,
    typer.Option("--dir", help="A local fleet's directory, for its URL and token.", show_default=False),
]
Role = Literal["read", "deploy", "admin"]
#: Answers that tell whoever typed the command to type something else.
_USAGE = frozenset({400, 401, 403, 404, 405, 422})


def _urls(variable: str) -> tuple[str, ...]:
    return tuple(u.strip() for u in os.environ.get(variable, "").split(",") if u.strip())


def find(directory: Path | None, role: Role) -> tuple[tuple[str, ...], str]:
    """URLs of the replicas and a token. Raises CommandError, BadConfig."""
    urls = _urls("PINRAIL_URL")
    if urls and directory is None:
        token = os.environ.get("PINRAIL_TOKEN", "")
        if not token:
            raise CommandError("$PINRAIL_URL is set and $PINRAIL_TOKEN is not: set it to a token of that service", 2)
        return urls, token
    where = state.directory(directory)
    fleet = state.load(where)
    if fleet is None or not fleet.barrier:
        raise CommandError(
            f"no barrier service is known: set $PINRAIL_URL and $PINRAIL_TOKEN, or start a local fleet with "
            f"`pinrail up` (there is none in {where})",
            2,
        )
    return tuple(b.url for b in fleet.barrier), str(getattr(fleet.token, role))


def pages(directory: Path | None, role: Role) -> tuple[tuple[str, ...], str]:
    """As ``find``, for a browser: of a fleet in containers its published ports, which compose.yaml tells the tools."""
    urls, token = find(directory, role)
    published = () if _urls("PINRAIL_URL") else _urls("PINRAIL_PAGES")
    # "Every address of this machine" is none that can be asked.
    return tuple(u.replace("//0.0.0.0:", "//localhost:") for u in published) or urls, token


@contextmanager
def barrier_service(directory: Path | None, role: Role = "deploy") -> Iterator[Client]:
    """A client of the barrier service; what it refuses becomes the command's error."""
    from pipeline.client import BarrierError, Client  # a tenth of a second, for those commands only that need it

    urls, token = find(directory, role)
    try:
        client = Client(urls, token)
    except ValueError as e:
        raise CommandError(f"$PINRAIL_URL or the token cannot be used: {e}", 2) from e
    with client:
        try:
            yield client
        except BarrierError as e:
            raise CommandError(str(e), 2 if e.status in _USAGE else 1) from e
