"""``pinrail demo``: three releases both ways under load, and a verdict."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pinrail.commands.fleet import Dir, Engine, Json, known_engine
from pinrail.errors import CommandError, reported

if TYPE_CHECKING:
    from pinrail.local.state import FleetState


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where the picture goes; else flips.svg in the fleet's directory.")
    ] = None,
    browsers: Annotated[int, typer.Option(min=1, max=500, help="Simulated browsers at once.")] = 30,
    engine: Engine = "varnish",
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Roll three releases under load, first as an ordinary rolling deploy, then through Pinrail; about two minutes.

    Uses the fleet that runs; where none does, one is started and stopped again. Exits 0 only if every promise held.
    """
    with reported():
        _require_extras()
        from pinrail.demo.ground import LocalGround
        from pinrail.demo.interrupt import until_signal
        from pinrail.demo.load import Size
        from pinrail.demo.progress import Progress
        from pinrail.demo.report import show
        from pinrail.demo.run import demonstrate
        from pinrail.local import state
        from pinrail.local.layout import PICTURE
        from pinrail.local.signals import Interrupted

        where = state.directory(directory)
        picture = (out or where / PICTURE).absolute()
        if out is not None and (picture.is_dir() or not os.access(picture.parent, os.W_OK)):
            raise CommandError(f"cannot write {picture}; name a file in a directory that can be written with --out", 2)
        try:
            with _fleet(where, known_engine(engine)) as fleet, LocalGround(fleet) as ground, Progress() as progress:
                result = until_signal(
                    demonstrate(
                        ground,
                        f"demo-{secrets.token_hex(2)}",
                        progress.way,
                        picture=picture,
                        size=Size(browsers=browsers),
                    )
                )
        except Interrupted as e:
            raise CommandError(str(e), 128 + e.number) from e
        if as_json:
            typer.echo(json.dumps(result.as_json(), indent=2))
        else:
            from rich.console import Console

            show(result, Console(highlight=False))
        if not result.ok:
            raise CommandError("; ".join(f"not kept: {p.sentence}: {p.broken}" for p in result.broken))


def _require_extras() -> None:
    import importlib.util

    if importlib.util.find_spec("aiohttp") is None:
        raise CommandError("pinrail demo needs the extra 'local': pip install 'pinrail[local]', or script/setup", 2)


@contextmanager
def _fleet(where: Path, engine: Literal["varnish", "nginx"]) -> Iterator[FleetState]:
    """The fleet that runs in ``where``, or one that lives as long as the block does."""
    from pinrail.local import state
    from pinrail.local import up as fleets
    from pinrail.local.progress import Progress

    running = state.load(where)
    if running is not None and running.phase == "running" and fleets.alive(running):
        yield running
        return
    fleet, _ = fleets.up(where, fleets.Wanted(engine=engine), Progress())
    try:
        yield fleet
    finally:
        fleets.down(where, keep=True)


def add_to(app: typer.Typer) -> None:
    """Adds the demo."""
    app.command(rich_help_panel="Local fleet")(demo)
