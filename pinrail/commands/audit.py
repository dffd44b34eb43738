"""``pinrail audit``: who changed what, and why."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from fleet.names import service_name
from pinrail.connect import Dir, barrier_service
from pinrail.errors import reported
from pinrail.tables import show as show_table


def _epochs(before: int | None, after: int | None) -> str:
    return " -> ".join(str(e) for e in (before, after) if e is not None)


def audit(
    service: Annotated[str | None, typer.Argument(metavar="SERVICE", show_default=False)] = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    directory: Dir = None,
) -> None:
    """Who changed what, and why: the last changes of SERVICE or of everything, newest first."""
    from rich.table import Table

    with reported(), barrier_service(directory, "read") as client:
        found = client.audit(service_name(service) if service is not None else None, last)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        table = Table("when", "who", "what", "epoch", "why", box=None)
        for e in found:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
            epochs = _epochs(e["epoch_before"], e["epoch_after"])
            table.add_row(at, f"{e['by']} ({e['role']})", e["what"], epochs, e["why"])
        show_table(table)


def add_to(app: typer.Typer) -> None:
    app.command()(audit)
