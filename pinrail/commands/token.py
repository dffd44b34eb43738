"""``pinrail token create|list|revoke``: the barrier service's tokens file. Works on the file, asks no service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.names import node_name, service_name
from pinrail.connect import Role
from pinrail.errors import reported
from pinrail.tables import show as show_table

if TYPE_CHECKING:
    from barrier.config import TokenEntry

File = Annotated[Path, typer.Option("--file", help="The tokens.toml that barrier.toml names.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; the audit says it.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

_token = typer.Typer(name="token", help="Who may ask the barrier service for what.", no_args_is_help=True)


def _shown(entry: TokenEntry) -> dict[str, object]:
    return {"name": entry.name, "role": entry.role, "services": list(entry.services)}


@_token.command()
def create(
    name: Name,
    role: Annotated[Role, typer.Option(help="read looks, deploy releases, admin configures.", show_default=False)],
    file: File,
    service: Annotated[list[str] | None, typer.Option(help="For this service only; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once. The file keeps its hash; a running service takes it up by itself."""
    from barrier import tokenfile

    with reported():
        services = [service_name(s) for s in service or ()]
        made = tokenfile.create(file, node_name(name), role, services)
        if as_json:
            typer.echo(json.dumps({"name": name, "role": role, "services": services, "token": made}, indent=2))
            return
        typer.echo(made)
        typer.echo(f"that is the token of {name} ({role}); it is kept nowhere and cannot be shown again", err=True)


@_token.command("list")
def list_(file: File, as_json: Json = False) -> None:
    """Whose tokens there are, and what they are good for."""
    from rich.table import Table

    from barrier import tokenfile

    with reported():
        found = tokenfile.entries(file)
        if as_json:
            typer.echo(json.dumps([_shown(e) for e in found], indent=2))
            return
        table = Table("name", "role", "services", box=None)
        for e in found:
            table.add_row(e.name, e.role, ", ".join(e.services) or "all")
        show_table(table)


@_token.command()
def revoke(name: Name, file: File, as_json: Json = False) -> None:
    """From now on that token opens nothing."""
    from barrier import tokenfile

    with reported():
        left = tokenfile.revoke(file, node_name(name))
        if as_json:
            typer.echo(json.dumps([_shown(e) for e in left], indent=2))
            return
        typer.echo(f"the token of {name} is revoked", err=True)
        if not any(e.role == "admin" for e in left):
            typer.echo("no token with the role admin is left: nobody can configure a service", err=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(_token)
