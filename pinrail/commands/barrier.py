"""``pinrail barrier run|access|secure``: one replica in the foreground, and who may write to its ZooKeeper."""

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
    from fleet.loop import Wake, crash_with_any_thread, stop_on_signals

    with reported():
        loaded = config.load(file, BarrierConfig)
        log.configure(barrier=loaded.name)
        wake = Wake()
        stop_on_signals(wake)
        crash_with_any_thread()
        service.run(loaded, wake)


@_app.command()
def access(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where the three files go.")],
    anyone_reads: Annotated[bool, typer.Option("--anyone-reads", help="Anybody may read.")] = False,
) -> None:
    """Make the files that `zookeeper_access` names, with new secrets: barrier.toml, edge.toml, host.toml, mode 600."""
    import secrets

    from fleet.access import ROLES, issue
    from fleet.config import BadConfig
    from fleet.files import write_atomic
    from pinrail.local import toml

    with reported():
        there = [str(p) for r in ROLES if (p := directory / f"{r}.toml").exists()]
        if there:
            raise BadConfig(f"{', '.join(there)} exists already: take another directory, then exchange the files")
        made = issue({role: secrets.token_urlsafe(32) for role in ROLES}, anyone_reads=anyone_reads)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for role, file in made.items():
                path = directory / f"{role}.toml"
                write_atomic(path, "# Made by `pinrail barrier access`. Holds a secret.\n" + toml.of_model(file), 0o600)
                typer.echo(path)
        except OSError as e:
            raise BadConfig(f"cannot write {directory}: {e.strerror}") from e


@_app.command()
def secure(
    file: Annotated[Path, typer.Option("--config", help="barrier.toml, with zookeeper_access.")],
    before: Annotated[
        Path | None, typer.Option("--before", help="The access file until now, where secrets are being replaced.")
    ] = None,
) -> None:
    """Lock what was made in ZooKeeper while it was open. Every part must have its access file by then."""
    from barrier.config import BarrierConfig
    from barrier.securing import secure as lock
    from fleet import config
    from fleet.config import BadConfig
    from fleet.zk import ZooKeeper, read_access

    with reported():
        loaded = config.load(file, BarrierConfig)
        if loaded.zookeeper_access is None:
            raise BadConfig(f"{file} names no zookeeper_access: `pinrail barrier access` makes it")
        access = read_access(loaded.zookeeper_access, "barrier")
        zk = ZooKeeper(loaded.zookeeper, wake=lambda: None, access=access, before=read_access(before, "barrier"))
        try:
            zk.start()
            looked, changed = lock(zk)
        finally:
            zk.close()
        typer.echo(f"{looked} nodes, {changed} of them locked now", err=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(_app)
    token.add_to(app)
