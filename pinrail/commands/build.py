"""``pinrail build publish|list|show|verify``: builds in the object store."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinrail.errors import CommandError, reported

if TYPE_CHECKING:
    from fleet.config import S3Config
    from fleet.model import Manifest
    from fleet.s3 import ObjectStore
    from pipeline.publish import Phase, Report

Service = Annotated[str, typer.Argument(help="The service's name.")]
BuildName = Annotated[str, typer.Argument(help="The build's name.")]
Dir = Annotated[
    Path | None,
    typer.Option("--dir", help="The fleet's directory; else $PINRAIL_DIR, else .pinrail here.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

builds = typer.Typer(
    name="build",
    no_args_is_help=True,
    help="Builds in S3: publish, list, show, verify.",
    epilog="S3 is found by PINRAIL_S3_BUCKET and PINRAIL_S3_ENDPOINT with AWS's own variables for region and "
    "credentials, else through the local fleet's directory.",
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(builds)


def s3_location(directory: Path | None) -> S3Config:
    """From the environment when it names a bucket or an endpoint, else the local fleet's."""
    from fleet.config import S3Config
    from pinrail.local import config, state

    bucket, endpoint = os.environ.get("PINRAIL_S3_BUCKET"), os.environ.get("PINRAIL_S3_ENDPOINT")
    if (bucket or endpoint) and directory is None:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return S3Config(endpoint=endpoint or None, bucket=bucket or "pinrail", region=region)
    where = state.directory(directory)
    fleet = state.load(where)
    if fleet is None:
        raise CommandError(
            f"there is no S3 to talk to: set PINRAIL_S3_BUCKET (and PINRAIL_S3_ENDPOINT), or start a local fleet "
            f"with `pinrail up` (none in {where})",
            2,
        )
    return config.s3_config(fleet)


@contextmanager
def _store(directory: Path | None) -> Iterator[ObjectStore]:
    """The store; and what goes wrong with builds, said in one line."""
    from fleet.s3 import ObjectStore
    from pipeline.archive import BadTree
    from pipeline.publish import BadBuild, BuildTaken, NoSuchBuild

    with reported():
        try:
            yield ObjectStore(s3_location(directory))
        except BadTree as e:
            raise CommandError(str(e), 2) from e
        except (BuildTaken, NoSuchBuild, BadBuild) as e:
            raise CommandError(str(e)) from e
        except OSError as e:
            raise CommandError(f"the disk: {e.strerror or e}" + (f" ({e.filename})" if e.filename else "")) from e


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A bar on a terminal, silence anywhere else."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description:>11}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[Phase, int] = {}

        def report(phase: Phase, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done)  # type: ignore[arg-type]  # TaskID is an int

        yield report


def _print(manifest: Manifest) -> None:
    for key, value in manifest.model_dump(mode="json").items():
        if value not in (None, ""):
            typer.echo(f"{key:>9}  {value}")


@builds.command("publish")
def publish(
    tree: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="What to publish: all of it but .git at its top.")],
    service: Annotated[str, typer.Option("--service", "-s", help="The service it is a build of.")],
    build: Annotated[
        str | None,
        typer.Option("--build", "-b", help="Its name; else the short git commit, else the digest's first 12 digits."),
    ] = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Publish a directory as a build. A name means the same bytes for ever: the same again succeeds, others do not."""
    from pipeline import publish as pipeline

    with _store(directory) as store:
        if not tree.is_dir():
            raise CommandError(f"{tree} is {'not a directory' if tree.exists() else 'not there'}", 2)
        with _progress(quiet=as_json) as report:
            done = pipeline.publish(store, tree, service, build, report=report)
        m = done.manifest
        if as_json:
            typer.echo(json.dumps({**m.model_dump(mode="json"), "new": done.new}))
        elif done.new:
            typer.echo(f"published {m.service} {m.build}: {m.files} files, {m.size} bytes, {m.digest}")
        else:
            typer.echo(f"{m.service} {m.build} was there already, with the same bytes ({m.digest})")


@builds.command("list")
def list_(service: Service, directory: Dir = None, as_json: Json = False) -> None:
    """All builds of a service, the newest first."""
    from rich.console import Console
    from rich.table import Table

    from pipeline import publish as pipeline

    with _store(directory) as store:
        found, bad = pipeline.builds(store, service)
        for sentence in bad:
            typer.echo(f"pinrail: {sentence}", err=True)
        if as_json:
            typer.echo(json.dumps([m.model_dump(mode="json") for m in found]))
        elif not found:
            typer.echo(f"there are no builds of {service}", err=True)
        elif not sys.stdout.isatty():
            for m in found:
                typer.echo(f"{m.build}\t{m.created}\t{m.size}\t{m.commit or '-'}\t{m.branch or '-'}")
        else:
            table = Table("build", "published", "bytes", "commit", "branch", "by", box=None)
            for m in found:
                table.add_row(m.build, m.created, f"{m.size:,}", (m.commit or "")[:12], m.branch or "", m.builder)
            Console().print(table)


@builds.command("show")
def show(service: Service, build: BuildName, directory: Dir = None, as_json: Json = False) -> None:
    """One build's manifest."""
    from pipeline import publish as pipeline

    with _store(directory) as store:
        manifest = pipeline.show(store, service, build)
        if as_json:
            typer.echo(manifest.model_dump_json())
        else:
            _print(manifest)


@builds.command("verify")
def verify(service: Service, build: BuildName, directory: Dir = None, as_json: Json = False) -> None:
    """Fetch a build again and compare all of it with its manifest."""
    from pipeline import publish as pipeline

    with _store(directory) as store:
        with _progress(quiet=as_json) as report:
            m = pipeline.verify(store, service, build, report=report)
        if as_json:
            typer.echo(m.model_dump_json())
        else:
            typer.echo(f"{m.service} {m.build} is whole: {m.files} files, {m.size} bytes, {m.digest}")
