"""``pinrail container``: what the images run. Parts are told by PINRAIL_* variables, as compose.yaml sets them."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinrail.errors import CommandError, reported

if TYPE_CHECKING:
    from pinrail.local.state import FleetState

_app = typer.Typer(name="container", help="What the images of the compose file run.", no_args_is_help=True, hidden=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@_app.command("secrets")
def secrets_() -> None:
    """Make users, tokens and keys of a new fleet in their volumes; where they are there, leave them."""
    from pinrail.containers import given
    from pinrail.containers.secrets import make

    with reported():
        made = make(given.read(given.Fleet))
        typer.echo(f"secrets were {'made' if made else 'there already'}", err=True)


@_app.command()
def edge() -> None:
    """Run an edge: its Varnish or nginx, and the agent."""
    from edge.stopping import turn_red
    from fleet import log
    from fleet.loop import Trouble
    from pinrail.containers import given, pair, parts

    with reported():
        told = given.read(given.Edge)
        config, server, agent = parts.edge(told)

        def leave() -> float:
            try:
                turn_red(config)
            except Trouble as e:
                log.get().warning(f"{e}; the server is stopped all the same")
                return 0.0
            return told.leave_seconds

        raise typer.Exit(pair.run(server, agent, leave))


@_app.command()
def host() -> None:
    """Run a host: the server that runs pools, and the agent."""
    from pinrail.containers import given, pair, parts

    with reported():
        told = given.read(given.Host)
        # An agent that ends takes its host out of the server sets.
        raise typer.Exit(pair.run(*parts.host(told), lambda: told.leave_seconds))


@_app.command()
def barrier() -> None:
    """Run a replica of the barrier service."""
    from pinrail.containers import given, parts

    with reported():
        _become(parts.barrier(given.read(given.Barrier)))


@_app.command()
def zookeeper() -> None:
    """Run one server of the ensemble."""
    from pinrail.containers import given, parts

    with reported():
        _become(parts.keeper(given.read(given.ZooKeeper)))


@_app.command()
def s3() -> None:
    """Run the object store."""
    from pinrail.containers import given, parts

    with reported():
        parts.s3(given.read(given.S3))


def _become(argv: list[str]) -> None:
    os.execv(argv[0], argv)  # noqa: S606  no shell is the point


@_app.command()
def first() -> None:
    """Publish three builds of the sample service and deploy the first."""
    from pinrail.local import sample, state
    from pinrail.local.progress import Progress

    with reported(), Progress() as progress:
        sample.serve(_fleet(state.directory(None)), progress)


@_app.command()
def whole(
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait.")] = 180,
) -> None:
    """Wait until every part is there, green, agreed, and serves: before the next one is touched. 3: not in time."""
    from pinrail.containers.whole import wait
    from pinrail.local import sample, state
    from pinrail.local.progress import Progress

    with reported():
        fleet = _fleet(state.directory(None))
        with Progress() as progress, sample.client(fleet) as api:
            wait(fleet, api, timeout, progress)


@_app.command()
def releases(
    browsers: Annotated[int, typer.Option(min=1, max=500, help="Simulated browsers at once.")] = 20,
    number: Annotated[int, typer.Option("--releases", min=1, max=9, help="One after the other.")] = 2,
    as_json: Json = False,
) -> None:
    """Release new builds of the sample service, under load through the load balancer. 0: every promise held."""
    from pinrail.containers.releases import roll
    from pinrail.demo.check import Way
    from pinrail.demo.interrupt import until_signal
    from pinrail.demo.load import Size
    from pinrail.demo.progress import Progress
    from pinrail.local import state

    with reported():
        fleet = _fleet(state.directory(None))
        tag = f"under-load-{secrets.token_hex(2)}"
        builds = [f"{tag}-{n + 1}" for n in range(number)]
        with Progress() as progress:
            found = until_signal(
                roll(fleet, fleet.balancer or "", builds, Size(browsers=browsers), progress.way(Way.PINNED))
            )
        if as_json:
            typer.echo(json.dumps(found.as_json(), indent=2))
        for release in found.as_json()["releases"]:
            typer.echo(" ".join(f"{k}={v}" for k, v in release.items()), err=True)
        for promise in found.promises:
            said = f": {promise.broken}" if promise.broken else ""
            typer.echo(f"{'✗' if promise.broken else '✓'} {promise.sentence}{said}", err=True)
        if not found.ok:
            raise typer.Exit(1)


def _fleet(where: Path) -> FleetState:
    from pinrail.local import state

    fleet = state.load(where)
    if fleet is None or not fleet.in_containers:
        raise CommandError(f"there is no fleet in {where}: this runs in the tools container, once the fleet is up", 2)
    return fleet


def add_to(app: typer.Typer) -> None:
    app.add_typer(_app)
