"""``pinrail edge``: run the agent, become varnishd, and show or check what would be loaded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edge import main as edge_main
from edge import offline
from edge.config import EdgeConfig
from edge.nginx import offline as nginx_offline
from fleet import config as files
from fleet.names import node_name
from fleet.zk import read_access
from pinrail.commands.fleet import Engine, known_engine
from pinrail.connect import Dir, barrier_service
from pinrail.errors import CommandError, reported

ConfigFile = Annotated[Path, typer.Option("--config", help="The edge's own file (docs/config/edge.toml explains it).")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A plan as JSON.")]
MembersFile = Annotated[
    Path | None, typer.Option("--members", help='Hosts as JSON: {"VERSION": ["10.0.0.1:8000", ...]}.')
]
ServiceFile = Annotated[Path | None, typer.Option("--service-config", help="The service's config, TOML or JSON.")]
ServiceName = Annotated[str, typer.Option("--service", help="The service's name, with --plan.")]
FromZooKeeper = Annotated[
    str | None, typer.Option("--zookeeper", help="Every service there, instead of --plan: host:port,.../chroot.")
]
AccessFile = Annotated[Path | None, typer.Option("--access", help="The edge's zookeeper_access file.")]
OwnDirectory = Annotated[Path | None, typer.Option("--own", help="Directory of the operator's own VCL, SERVICE.vcl.")]

edge = typer.Typer(name="edge", help="An edge: Varnish or nginx, and the agent beside it.", no_args_is_help=True)


@edge.command()
def run(config: ConfigFile) -> None:
    """Run the agent beside Varnish or nginx until it is told to stop."""
    with reported():
        edge_main.run(files.load(config, EdgeConfig))


@edge.command("server")
def serve(config: ConfigFile) -> None:
    """Become varnishd or nginx, booted from the last good set."""
    with reported():
        edge_main.serve(files.load(config, EdgeConfig))


@edge.command("render")
def render_(
    to: Annotated[Path, typer.Option("--to", help="Directory to write into; made where it is missing.")],
    plan: PlanFile = None,
    members: MembersFile = None,
    service: ServiceName = "service",
    service_config: ServiceFile = None,
    zookeeper: FromZooKeeper = None,
    access: AccessFile = None,
    own: OwnDirectory = None,
    engine: Engine = "varnish",
) -> None:
    """Write what an edge would load: VCL and load.cli, which makes a varnishd load it, or nginx's configuration. The
    same input, the same files.

    0: written; 1: the input is invalid, and why; 2: it cannot be read.
    """
    with reported(), _invalid():
        given, faults = _given(plan, members, service, service_config, zookeeper, access, own)
        for fault in faults:
            typer.echo(f"pinrail: left out: {fault}", err=True)
        texts = nginx_offline.texts(given) if known_engine(engine) == "nginx" else offline.vcl(given, to)
        for path in offline.write(texts, to):
            typer.echo(path)


@edge.command()
def check(
    plan: PlanFile = None,
    members: MembersFile = None,
    service: ServiceName = "service",
    service_config: ServiceFile = None,
    zookeeper: FromZooKeeper = None,
    access: AccessFile = None,
    own: OwnDirectory = None,
    program: Annotated[str, typer.Option("--varnishd", help="The varnishd that compiles.")] = "varnishd",
    engine: Engine = "varnish",
) -> None:
    """Compile what an edge would load, or let nginx test it, without loading it anywhere.

    0: it compiles; 1: something in it is invalid or does not compile, and why; 2: it cannot be read.
    """
    with reported(), _invalid():
        given, faults = _given(plan, members, service, service_config, zookeeper, access, own)
        if known_engine(engine) == "nginx":
            results = [("nginx.conf", nginx_offline.test(given))]
        else:
            results = offline.compile_all(offline.vcl(given, Path()), program)
        for name, said in results:
            typer.echo(f"{name}: {said or 'compiles'}", err=bool(said))
        for fault in faults:
            typer.echo(f"pinrail: {fault}", err=True)
        if faults or any(said for _, said in results):
            raise typer.Exit(1)


def _given(
    plan: Path | None,
    members: Path | None,
    service: str,
    config: Path | None,
    zookeeper: str | None,
    access: Path | None,
    own: Path | None,
) -> tuple[list[offline.Given], list[str]]:
    if (zookeeper is None) == (plan is None) or (plan is None) != (members is None):
        raise CommandError("give either --plan and --members, or --zookeeper", 2)
    if zookeeper is not None:
        return offline.from_zookeeper(zookeeper, read_access(access, "edge"), own)
    assert plan is not None and members is not None  # noqa: S101
    return offline.from_files(service, plan, members, config, own), []


@contextmanager
def _invalid() -> Iterator[None]:
    try:
        yield
    except offline.Invalid as e:
        raise CommandError(str(e)) from e


EdgeName = Annotated[str, typer.Argument(metavar="EDGE", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@edge.command()
def leave(
    name: EdgeName,
    drain: Annotated[float, typer.Option(min=0, help="Seconds until no request can reach it any more.")] = 30,
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Take an edge away: its health page turns red, and after --drain seconds no barrier waits for it any more."""
    with reported(), barrier_service(directory) as client:
        client.leave(node_name(name), reason)
        typer.echo(f"{name}: its health page turns red; {drain:g} s for the load balancer to take it out", err=True)
        time.sleep(drain)
        found = client.evict(name, reason or "it leaves")
        if as_json:
            typer.echo(json.dumps(found | {"leaving": True}, indent=2))
        else:
            typer.echo(f"{name} has left; stop it, or take it back with `pinrail edge return {name}`", err=True)


@edge.command("return")
def return_(name: EdgeName, reason: Reason = "", as_json: Json = False, directory: Dir = None) -> None:
    """Take back an edge that had left: it joins as soon as it is up to date, and turns green then."""
    with reported(), barrier_service(directory) as client:
        found = client.take_back(node_name(name), reason)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif found["alive"]:
            typer.echo(f"{name} may join again, and does so by itself", err=True)
        else:
            typer.echo(f"{name} may join again; its agent is away", err=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(edge)
