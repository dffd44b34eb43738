"""``pinrail barrier run``: one replica of the barrier service, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinrail.commands import token
from pinrail.errors import reported

_app = typer.Typer(name="barrier", help="The barrier service: drives rollouts, serves the API.", no_args_is_help=True)


@_app.command()
def run(
    file: Annotated[Path, typer.Option("--config", help="barrier.toml; docs/config/barrier.toml explains it.")],
) -> None:
    """Run one replica until TERM. Start as many as you like; one of them leads."""
    from barrier import service  # half a second of imports, which no other command should pay for
    from barrier.config import BarrierConfig
    from fleet import config, log
    from fleet.loop import Wake, stop_on_signals

    with reported():
        loaded = config.load(file, BarrierConfig)
        log.configure(barrier=loaded.name)
        wake = Wake()
        stop_on_signals(wake)
        service.run(loaded, wake)


def add_to(app: typer.Typer) -> None:
    app.add_typer(_app)
    token.add_to(app)
