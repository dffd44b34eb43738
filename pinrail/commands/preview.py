"""``pinrail preview create|list|revoke``: tokens that show one version to whoever carries them."""

from __future__ import annotations

import json
import re
import time
from typing import Annotated

import typer

from fleet.names import build_name, service_name
from pinrail.connect import Dir, barrier_service
from pinrail.errors import CommandError, reported
from pinrail.tables import show as show_table

Service = Annotated[str, typer.Argument(metavar="SERVICE", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]

_preview = typer.Typer(name="preview", help="Show a version to whoever carries a token.", no_args_is_help=True)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}


def seconds(text: str) -> float:
    """``90``, ``90s``, ``15m``, ``8h``, ``7d``. Raises CommandError."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None:
        raise CommandError(f"--for {text!r} is not a time such as 90s, 15m, 8h or 7d", 2)
    return int(found[1]) * float(_UNITS[found[2]])


@_preview.command()
def create(
    service: Service,
    build: Annotated[str, typer.Argument(metavar="BUILD", help="Served, or on canaries.", show_default=False)],
    time_: Annotated[str, typer.Option("--for", help="How long: 90s, 15m, 8h, 7d.")] = "1h",
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Make a token and print it: with ?dpl=TOKEN a page, and all that it asks for, comes from BUILD."""
    with reported():
        wanted = seconds(time_)
        with barrier_service(directory) as client:
            made = client.preview(service_name(service), build_name(build), wanted, reason)
            met = client.barrier(service, f"applied-{made['epoch']}", wait=10)
        if as_json:
            typer.echo(json.dumps(made | {"missing": met["missing"]}, indent=2))
            return
        typer.echo(made["token"])
        away = "".join(f"; not yet at {m['edge']}: {m['why']}" for m in met["missing"])
        typer.echo(f"preview {made['id']}: open any page of {service} with ?dpl={made['token']}{away}", err=True)


@_preview.command("list")
def list_(service: Service, as_json: Json = False, directory: Dir = None) -> None:
    """The previews of SERVICE; --json with their tokens."""
    from rich.table import Table

    with reported(), barrier_service(directory, "read") as client:
        found = client.previews(service_name(service))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        table = Table("id", "build", "by", "until", box=None)
        for p in found:
            table.add_row(p["id"], p["version"], p["by"], time.strftime("%Y-%m-%d %H:%M", time.localtime(p["expires"])))
        show_table(table)


@_preview.command()
def revoke(
    service: Service,
    preview: Annotated[str, typer.Argument(metavar="ID", help="As `preview list` shows it.", show_default=False)],
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """From now on that token opens nothing."""
    with reported(), barrier_service(directory) as client:
        client.revoke_preview(service_name(service), preview, reason)
        if as_json:
            typer.echo(json.dumps({"revoked": preview}))
        else:
            typer.echo(f"preview {preview} is revoked", err=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(_preview)
