"""``pinrail doctor``: is everything here that the local fleet needs, and what to type where it is not."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from pinrail.errors import reported


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """What is installed, what is missing or would be slow, and what to type; 0 when a fleet can start."""
    with reported():
        from pinrail.local import tools

        found = tools.inspect()
        ok = all(f.state != "missing" for f in found)
        if as_json:
            typer.echo(json.dumps({"ok": ok, "tools": [dataclasses.asdict(f) for f in found]}, indent=2))
        else:
            _show(found)
            typer.echo("a local fleet can start: pinrail up" if ok else "a local fleet cannot start yet")
        if not ok:
            raise typer.Exit(1)


def _show(found: list) -> None:  # type: ignore[type-arg]  # of tools.Finding, imported late
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "version", "", "to do"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "slow": "yellow", "missing": "red"}
    for f in found:
        words = "missing" if f.state == "missing" else "not installed" if not f.version else f.version
        table.add_row(f.name, f"[{colours[f.state]}]{words}[/]", f.why, f.fix)
    Console(highlight=False).print(table)


def add_to(app: typer.Typer) -> None:
    """Adds ``doctor``."""
    app.command(rich_help_panel="Local fleet")(doctor)
