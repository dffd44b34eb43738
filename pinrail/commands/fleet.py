"""``pinrail up|down|status|start|stop``: the local fleet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from pinrail.errors import CommandError, reported

Dir = Annotated[
    Path | None,
    typer.Option("--dir", help="The fleet's directory; else $PINRAIL_DIR, else .pinrail here.", show_default=False),
]
Engine = Annotated[str, typer.Option(help="What the edges run: varnish or nginx.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def _interruptible() -> Iterator[None]:
    from pinrail.local.signals import Interrupted

    try:
        yield
    except Interrupted as e:
        typer.echo(f"pinrail: {e}; everything was stopped", err=True)
        raise typer.Exit(128 + e.number) from e


def known_engine(name: str) -> Literal["varnish", "nginx"]:
    if name == "varnish":
        return "varnish"
    if name == "nginx":
        return "nginx"
    raise CommandError(f"there is no engine {name!r}; there are varnish and nginx", 2)


def up(
    edges: Annotated[int, typer.Option(min=1, max=16, help="Edges, each a Varnish or nginx with its agent.")] = 2,
    hosts: Annotated[int, typer.Option(min=1, max=16, help="Hosts, each with its own loopback address.")] = 3,
    zookeepers: Annotated[int, typer.Option(min=1, max=7, help="ZooKeeper servers; three outlive one.")] = 1,
    engine: Engine = "varnish",
    bare: Annotated[bool, typer.Option("--bare", help="Publish and deploy nothing.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1024, max=65000, help="First of the ports to use; else free ones are looked for."),
    ] = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Start a local fleet in the background; the last line is a URL that answers."""
    with reported(), _interruptible():
        from pinrail.local import state, status
        from pinrail.local import up as fleets
        from pinrail.local.progress import Progress

        where = state.directory(directory)
        progress = Progress()
        wanted = fleets.Wanted(
            engine=known_engine(engine), edges=edges, hosts=hosts, zookeepers=zookeepers, bare=bare, port=port
        )
        fleet, started = fleets.up(where, wanted, progress)
        if not started:
            progress.say(f"the fleet in {where} is already running")
        typer.echo(json.dumps(status.collect(fleet), indent=2) if as_json else fleet.url)


def down(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the logs.")] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Stop the local fleet and remove everything it made."""
    with reported(), _interruptible():
        from pinrail.local import state
        from pinrail.local import up as fleets

        where = state.directory(directory)
        was = fleets.down(where, keep=keep)
        if as_json:
            typer.echo(json.dumps({"stopped": was, "directory": str(where)}))
        else:
            typer.echo(f"the fleet in {where} is gone" if was else f"there is no fleet in {where}")
            if was and keep:
                typer.echo(f"its logs are in {where / 'logs'}")


def status(directory: Dir = None, as_json: Json = False) -> None:
    """What runs, where, which version each edge serves, and what each host has in its slots."""
    with reported():
        from pinrail.local import state
        from pinrail.local import status as statuses
        from pinrail.local import up as fleets

        fleet = fleets.known(state.directory(directory))
        collected = statuses.collect(fleet)
        if as_json:
            typer.echo(json.dumps(collected, indent=2))
        else:
            statuses.show(collected)


Part = Annotated[str, typer.Argument(help="edge-1, edge-1-server, host-2, host-2-server, barrier-1, zookeeper, s3 ...")]


def stop(part: Part, directory: Dir = None) -> None:
    """Take one part of the local fleet away; it stays away until `pinrail start`."""
    with reported():
        from pinrail.local import bringup, state
        from pinrail.local import up as fleets
        from pinrail.local.supervisord import Supervisor

        fleet = fleets.require(state.directory(directory))
        bringup.stop_one(Supervisor(fleet.supervisor.socket), part)
        typer.echo(f"{part} is stopped")


def start(part: Part, directory: Dir = None) -> None:
    """Bring one part of the local fleet back, and wait until it is ready."""
    with reported():
        from pinrail.local import bringup, state
        from pinrail.local import up as fleets
        from pinrail.local.supervisord import Supervisor

        fleet = fleets.require(state.directory(directory))
        bringup.start_one(fleet, Supervisor(fleet.supervisor.socket), part)
        typer.echo(f"{part} is ready")


def add_to(app: typer.Typer) -> None:
    """Adds the local fleet's commands."""
    app.command(rich_help_panel="Local fleet")(up)
    for command in (down, status, stop, start):
        app.command(rich_help_panel="Local fleet")(command)
