"""``pinrail edges|hosts|evict|config``: the fleet and the services' configuration, by the barrier service's API."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet.config import BadConfig
from fleet.names import node_name, service_name
from pinrail.connect import Dir, barrier_service
from pinrail.errors import reported
from pinrail.tables import show as show_table

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

_config = typer.Typer(name="config", help="A service's configuration.", no_args_is_help=True)


def _waited(edge: dict[str, Any]) -> str:
    return ("wait for it" if edge["rostered"] else "ignore it") + (", leaving" if edge["leaving"] else "")


def edges(as_json: Json = False, directory: Dir = None) -> None:
    """Every edge: whether it lives, whether barriers wait for it, how far it is, and what it has to say."""
    from rich.table import Table

    with reported(), barrier_service(directory, "read") as client:
        found = client.edges()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        table = Table("edge", "agent", "barriers", "service", "epoch", "", box=None)
        for e in found:
            who = (e["name"], "alive" if e["alive"] else "away", _waited(e))
            for service, seen in e["services"].items() or [("", {})]:
                ack = seen.get("ack") or {}
                says = seen.get("behind") or ack.get("error") or ""
                table.add_row(*who, service, str(ack.get("applied", "")), says)
                who = ("", "", "")
        show_table(table)


def hosts(as_json: Json = False, directory: Dir = None) -> None:
    """Every host that lives, and what runs in its slots."""
    from rich.table import Table

    with reported(), barrier_service(directory, "read") as client:
        found = client.hosts()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        if not found:
            typer.echo("no host's agent is there, or none has seen a service yet: `pinrail host run`", err=True)
            return
        table = Table("host", "service", "slots", "serial", "", box=None)
        for h in found:
            for service, seen in h["services"].items():
                status = seen["status"]
                slots = ", ".join(
                    f"{s['port']}: {s['build'] or '-'} {s['state']} {s['live']}/{s['processes']}"
                    for s in status["slots"]
                )
                doing = status["error"] or status["step"] or ""
                who = h["name"] if status["role"] == "default" else f"{h['name']} ({status['role']})"
                table.add_row(who, service, slots, f"{status['serial']} of {seen['wanted']}", doing)
        show_table(table)


def evict(
    edge: Annotated[str, typer.Argument(metavar="EDGE", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why no user's request reaches it any more.")],
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Barriers no longer wait for EDGE: you say that it is out of the load balancer."""
    with reported(), barrier_service(directory) as client:
        found = client.evict(node_name(edge), reason)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        elif found["alive"]:
            typer.echo(f"{edge} was evicted, but its agent lives: it joins again as soon as it is up to date", err=True)
        else:
            typer.echo(f"{edge} was evicted; it joins again when it comes back and is up to date", err=True)


@_config.command("get")
def get(
    service: Annotated[str, typer.Argument(metavar="SERVICE", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="JSON is what it prints anyway.")] = False,
    directory: Dir = None,
) -> None:
    """The configuration, all defaults filled in, as JSON that `config set` takes."""
    with reported(), barrier_service(directory, "read") as client:
        typer.echo(json.dumps(client.service(service_name(service))["config"], indent=2))


def _read(file: Path) -> Any:
    """What is in a .json or a .toml file. Raises BadConfig."""
    try:
        text = file.read_text()
        return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as e:
        raise BadConfig(f"cannot read {file}: {e.strerror}") from e
    except ValueError as e:
        raise BadConfig(f"{file} is not {'JSON' if file.suffix == '.json' else 'TOML'}: {e}") from e


@_config.command("set")
def set_(
    service: Annotated[str, typer.Argument(metavar="SERVICE", show_default=False)],
    file: Annotated[Path, typer.Argument(metavar="FILE", help=".toml or .json", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
    epoch: Annotated[int | None, typer.Option("--expected-epoch", min=0, help="Only if the plan is at it.")] = None,
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Configure SERVICE by FILE; makes the service where there is none. It takes effect at once."""
    with reported():
        body = _read(file)
        with barrier_service(directory, "admin") as client:
            found = client.configure(service_name(service), body, reason, epoch)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            typer.echo(f"{service} is configured by {file}", err=True)


def add_to(app: typer.Typer) -> None:
    app.command()(edges)
    app.command()(hosts)
    app.command()(evict)
    app.add_typer(_config)
