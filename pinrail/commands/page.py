"""``pinrail page``: where the barrier service's page is, with a token that opens it."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer

from pinrail.connect import Dir, Role, pages
from pinrail.errors import reported


def page(
    role: Annotated[Role, typer.Option(help="Of a local fleet's token: read looks, deploy acts too.")] = "deploy",
    directory: Dir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Print the page's address. It holds a token, behind a # that no server gets to see: keep it to yourself."""
    with reported():
        urls, token = pages(directory, role)
        found = [f"{url.rstrip('/')}/#token={quote(token, safe='')}" for url in urls]
        typer.echo(json.dumps({"urls": found}, indent=2) if as_json else found[0])


def add_to(app: typer.Typer) -> None:
    """Adds ``page``."""
    app.command()(page)
