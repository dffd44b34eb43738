"""``pinrail edge``: run the agent, become varnishd, and show or check what would be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge import main as edge_main
from edge import offline, server
from edge.config import EdgeConfig
from fleet import config as files
from pinrail.errors import reported

ConfigFile = Annotated[Path, typer.Option("--config", help="The edge's own file (docs/config/edge.toml explains it).")]
PlanFile = Annotated[Path, typer.Option("--plan", help="A plan as JSON.")]
MembersFile = Annotated[Path, typer.Option("--members", help='Hosts as JSON: {"VERSION": ["10.0.0.1:8000", ...]}.')]
ServiceFile = Annotated[Path | None, typer.Option("--service-config", help="The service's config, TOML or JSON.")]
ServiceName = Annotated[str, typer.Option("--service", help="The service's name.")]

edge = typer.Typer(name="edge", help="An edge: Varnish and the agent beside it.", no_args_is_help=True)


@edge.command()
def run(config: ConfigFile) -> None:
    """Run the agent beside Varnish until it is told to stop."""
    with reported():
        edge_main.run(files.load(config, EdgeConfig))


@edge.command("server")
def serve(config: ConfigFile) -> None:
    """Become varnishd, booted from the last good set."""
    with reported():
        server.run(files.load(config, EdgeConfig))


@edge.command("render")
def render_(
    plan: PlanFile,
    members: MembersFile,
    to: Annotated[Path, typer.Option("--to", help="Directory to write into; made where it is missing.")],
    service: ServiceName = "service",
    service_config: ServiceFile = None,
) -> None:
    """Write the VCL that an edge would load for a plan: current, staged and root. The same input, the same files."""
    with reported():
        for path in offline.write(offline.read(service, plan, members, service_config), to):
            typer.echo(path)


@edge.command()
def check(
    plan: PlanFile,
    members: MembersFile,
    service: ServiceName = "service",
    service_config: ServiceFile = None,
    program: Annotated[str, typer.Option("--varnishd", help="The varnishd that compiles.")] = "varnishd",
) -> None:
    """Compile the VCL of a plan without loading it. 0: it compiles; 1: it does not, and why; 2: the input is wrong."""
    with reported():
        for name, said in offline.compile_all(offline.read(service, plan, members, service_config), program):
            if said:
                typer.echo(f"{name}: {said}", err=True)
                raise typer.Exit(1)
            typer.echo(f"{name}: compiles")


def add_to(app: typer.Typer) -> None:
    app.add_typer(edge)
