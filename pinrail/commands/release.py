"""``pinrail deploy|rollback|rollout``: release a build and follow it. Talks to the barrier service's API only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fleet.names import build_name, service_name
from pinrail.commands import audit, nodes, preview
from pinrail.connect import Dir, barrier_service
from pinrail.errors import CommandError, fail, reported
from pinrail.tables import show as show_table

if TYPE_CHECKING:
    from pipeline.client import Client, RolloutNow, Verb

Service = Annotated[str, typer.Argument(metavar="SERVICE", show_default=False)]


def _rollout_number(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no rollout's number: `pinrail rollout list SERVICE` shows them")
    return int(text)


Number = Annotated[
    int | None,
    typer.Argument(
        metavar="NUMBER", parser=_rollout_number, help="Else the active one, else the last.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the rollout and in the audit.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait; exit code 3 after that.")]

_rollout = typer.Typer(name="rollout", help="Look at rollouts and steer them.", no_args_is_help=True)


def _ramp(text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        return [int(part.strip().removesuffix("%")) for part in text.split(",")]
    except ValueError as e:
        raise CommandError(f"--ramp {text!r} is not a list of percentages such as 1,10,100", 2) from e


def _hold(text: str | None) -> float | Literal["hand", "verdict"] | None:
    if text is None or text == "hand" or text == "verdict":
        return text  # type: ignore[return-value]  # mypy narrows no str to a literal by comparison
    try:
        return float(text)
    except ValueError as e:
        raise CommandError(f'--hold {text!r} is neither seconds nor "hand" nor "verdict"', 2) from e


def _print(now: RolloutNow) -> None:
    typer.echo(now.model_dump_json(indent=2))


def _end(now: RolloutNow, code: int, why: str, *, as_json: bool) -> None:
    if as_json:
        _print(now)
    if code:
        raise fail(why, code)


def deploy(
    service: Service,
    build: Annotated[str, typer.Argument(metavar="BUILD", help="A published build.", show_default=False)],
    ramp: Annotated[str | None, typer.Option(help="Percentages of new page loads, like 1,10,100.")] = None,
    hold: Annotated[str | None, typer.Option(help="Seconds per step of the ramp (60), or: hand, verdict.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = False,
    timeout: Timeout = 1800,
    reason: Reason = "",
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key never begins a second one.")] = None,
    epoch: Annotated[int | None, typer.Option("--expected-epoch", min=0, help="Only if the plan is at it.")] = None,
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Release BUILD. Exit code with --wait: 0 done, 1 rolled back or failed, 2 usage, 3 not over at the timeout."""
    from pinrail import follow

    with reported():
        service_name(service)
        build_name(build)
        steps = _ramp(ramp)
        if key == "":
            raise CommandError("--key is empty: say what begins this rollout and no other, or leave it out", 2)
        with barrier_service(directory) as client:
            now = client.deploy(
                service, build, ramp=steps, hold=_hold(hold), reason=reason, key=key, expected_epoch=epoch
            )
            if not wait:
                begun = "waits for the active one" if now.state.value == "queued" and now.missing else "has begun"
                typer.echo(f"rollout {now.number} {begun}: `pinrail rollout watch {service} {now.number}`", err=True)
                _end(now, 0, "", as_json=as_json)
                return
            _end(*follow.wait(client, now, timeout, follow.DEPLOYED, quiet=as_json), as_json=as_json)


def rollback(
    service: Service,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until every edge is back.")] = True,
    timeout: Timeout = 60,
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Make the version before the default again; before the switch, undo the rollout that is under way."""
    from pinrail import follow

    with reported(), barrier_service(directory) as client:
        found = client.to_roll_back(service_name(service))
        if found is None:
            raise CommandError(f"{service} has no rollout that could be rolled back", 1)
        now = client.ask(service, found.number, "rollback", reason)
        if not wait:
            _asked(now, "asked to roll back", as_json=as_json)
            return
        skip = len(found.history)
        _end(*follow.wait(client, now, timeout, follow.UNDONE, quiet=as_json, skip=skip), as_json=as_json)


def _find(client: Client, service: str, number: int | None) -> RolloutNow:
    service_name(service)
    if number is not None:
        return client.rollout(service, number)
    latest = client.latest(service)
    if latest is None:
        raise CommandError(f"{service} has had no rollout yet", 1)
    return latest


@_rollout.command("list")
def list_(
    service: Service,
    last: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """The last rollouts, newest first."""
    from rich.table import Table

    with reported(), barrier_service(directory, "read") as client:
        found = client.rollouts(service_name(service), last)
        if as_json:
            typer.echo(json.dumps([r.model_dump(mode="json") for r in found], indent=2))
            return
        table = Table("no.", "build", "state", "by", "before", "reason", box=None)
        for r in found:
            state = r.state.value + ("" if r.done else " ...")
            table.add_row(str(r.number), r.build, state, r.by, r.previous or "", r.reason)
        show_table(table)


@_rollout.command()
def show(service: Service, number: Number = None, as_json: Json = False, directory: Dir = None) -> None:
    """One rollout: its history, and who it waits for right now."""
    with reported(), barrier_service(directory, "read") as client:
        now = _find(client, service, number)
        if as_json:
            _print(now)
            return
        typer.echo(f"rollout {now.number} of {service} to {now.build}: {now.state.value}{'' if now.done else ' ...'}")
        for event in now.history:
            took = f"  ({event.seconds:.1f} s)" if event.seconds is not None else ""
            typer.echo(f"  epoch {event.epoch}  {event.text}{took}")
        for name, why in now.failures.items():
            typer.echo(f"  failed: {name}: {why}")
        if now.request is not None:
            typer.echo(f"  {now.request.by} asked to {now.request.verb} it")
        for missing in now.missing:
            typer.echo(f"  waits for {missing}")
        if now.stalled:
            typer.echo("  it has stalled")


@_rollout.command()
def watch(
    service: Service, number: Number = None, timeout: Timeout = 86400, as_json: Json = False, directory: Dir = None
) -> None:
    """Follow a rollout to its end; exit codes as of deploy."""
    from pinrail import follow

    with reported(), barrier_service(directory, "read") as client:
        now = _find(client, service, number)
        _end(*follow.wait(client, now, timeout, follow.DEPLOYED, quiet=as_json), as_json=as_json)


def _asked(now: RolloutNow, what: str, *, as_json: bool) -> None:
    """What was asked is on its way, and where to see what comes of it; of one that only waited it is done already."""
    said = now.state.value if now.over else f"{what}: `pinrail rollout watch {now.service} {now.number}`"
    typer.echo(f"rollout {now.number} is {said}", err=True)
    _end(now, 0, "", as_json=as_json)


def _ask(service: str, number: int | None, verb: Verb, reason: str, as_json: bool, directory: Path | None) -> None:
    with reported(), barrier_service(directory) as client:
        now = client.ask(service, _find(client, service, number).number, verb, reason)
        _asked(now, f"asked to {verb}", as_json=as_json)


@_rollout.command()
def pause(
    service: Service, number: Number = None, reason: Reason = "", as_json: Json = False, directory: Dir = None
) -> None:
    """No further step and no further host until it is resumed."""
    _ask(service, number, "pause", reason, as_json, directory)


@_rollout.command()
def resume(
    service: Service, number: Number = None, reason: Reason = "", as_json: Json = False, directory: Dir = None
) -> None:
    """Go on: after a pause, at once to the ramp's next step, or once more with hosts that failed."""
    _ask(service, number, "resume", reason, as_json, directory)


@_rollout.command()
def verdict(
    service: Service,
    verdict: Annotated[Literal["pass", "fail", "undecided"], typer.Argument(show_default=False)],
    number: Number = None,
    percent: Annotated[int | None, typer.Option(min=1, max=99, help="Only if the ramp still is there.")] = None,
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """On the ramp's present step: pass goes on to the next, fail aborts, undecided is written down."""
    with reported(), barrier_service(directory) as client:
        found = _find(client, service, number)
        now = client.verdict(service, found.number, verdict, reason, percent)
        _asked(now, f"given the verdict {verdict}", as_json=as_json)


@_rollout.command()
def abort(
    service: Service,
    number: Number = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until everything is as it was.")] = False,
    timeout: Timeout = 600,
    reason: Reason = "",
    as_json: Json = False,
    directory: Dir = None,
) -> None:
    """Undo a rollout that has not switched yet: put back what was served before."""
    from pinrail import follow

    with reported(), barrier_service(directory) as client:
        found = _find(client, service, number)
        now = client.ask(service, found.number, "abort", reason)
        if not wait:
            _asked(now, "asked to abort", as_json=as_json)
            return
        skip = len(found.history)
        _end(*follow.wait(client, now, timeout, follow.UNDONE, quiet=as_json, skip=skip), as_json=as_json)


def add_to(app: typer.Typer) -> None:
    app.command()(deploy)
    app.command()(rollback)
    app.add_typer(_rollout)
    preview.add_to(app)
    nodes.add_to(app)
    audit.add_to(app)
