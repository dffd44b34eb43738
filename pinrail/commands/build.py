"""``pinrail build publish|sign|revoke|list|show|verify|key``: builds in the object store."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinrail.errors import CommandError, reported
from pinrail.tables import show as show_table

if TYPE_CHECKING:
    from fleet.config import S3Config
    from fleet.model import Manifest, Signature
    from fleet.s3 import ObjectStore
    from fleet.signing import PrivateKey
    from pipeline.publish import Phase, Report

Service = Annotated[str, typer.Argument(help="The service's name.")]
BuildName = Annotated[str, typer.Argument(help="The build's name.")]
Dir = Annotated[
    Path | None,
    typer.Option("--dir", help="The fleet's directory; else $PINRAIL_DIR, else .pinrail here.", show_default=False),
]
Key = Annotated[
    Path | None,
    typer.Option("--key", help="File with the private key that signs; see `pinrail build key`.", show_default=False),
]
ValidDays = Annotated[
    float | None,
    typer.Option(
        "--valid-days",
        help="After so many days no host installs it any more.",
        min=0,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

builds = typer.Typer(
    name="build",
    no_args_is_help=True,
    help="Builds in S3: publish, sign, revoke, list, show, verify.",
    epilog="S3 is found by PINRAIL_S3_BUCKET and PINRAIL_S3_ENDPOINT with AWS's own variables for region and "
    "credentials, else through the local fleet's directory. The key that signs is --key, else the file that "
    "PINRAIL_SIGNING_KEY names, else the local fleet's.",
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(builds)


def _signing_key(given: Path | None, directory: Path | None) -> PrivateKey | None:
    """None where the caller has no key: hosts that ask for signatures will not run the build."""
    from pinrail.local import config, state
    from pipeline import signatures

    named = given or (Path(v) if (v := os.environ.get("PINRAIL_SIGNING_KEY")) else None)
    if named is not None:
        return signatures.read_key(named)
    if directory is None and (os.environ.get("PINRAIL_S3_BUCKET") or os.environ.get("PINRAIL_S3_ENDPOINT")):
        return None
    fleet = state.load(state.directory(directory))
    return config.signing_key(fleet) if fleet else None


def _until(days: float | None) -> int | None:
    return None if days is None else int(time.time() + days * 86400)


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
    from pipeline.signatures import BadSignatures

    with reported():
        try:
            yield ObjectStore(s3_location(directory))
        except BadTree as e:
            raise CommandError(str(e), 2) from e
        except (BuildTaken, NoSuchBuild, BadBuild, BadSignatures) as e:
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


def _said(signature: Signature) -> str:
    until = ""
    if signature.expires is not None:
        until = f", until {datetime.fromtimestamp(signature.expires, UTC).isoformat(timespec='minutes')}"
    return f"signed by the key {signature.key}, counter {signature.counter}{until}"


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
    key: Key = None,
    valid_days: ValidDays = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Publish a directory as a build. A name means the same bytes for ever: the same again succeeds, others do not."""
    from pipeline import publish as pipeline

    with _store(directory) as store:
        if not tree.is_dir():
            raise CommandError(f"{tree} is {'not a directory' if tree.exists() else 'not there'}", 2)
        signer = _signing_key(key, directory)
        with _progress(quiet=as_json) as report:
            done = pipeline.publish(store, tree, service, build, key=signer, expires=_until(valid_days), report=report)
        m = done.manifest
        if as_json:
            typer.echo(json.dumps({**m.model_dump(mode="json"), "new": done.new}))
        elif done.new:
            typer.echo(f"published {m.service} {m.build}: {m.files} files, {m.size} bytes, {m.digest}")
        else:
            typer.echo(f"{m.service} {m.build} was there already, with the same bytes ({m.digest})")


@builds.command("sign")
def sign(
    service: Service,
    build: BuildName,
    key: Key = None,
    valid_days: ValidDays = None,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Sign a build that is there: with the next key when keys change, or again when a signature has expired."""
    from pipeline import publish as pipeline
    from pipeline import signatures

    with _store(directory) as store:
        signer = _signing_key(key, directory)
        if signer is None:
            raise CommandError("there is no key to sign with: give --key FILE (`pinrail build key FILE` makes one)", 2)
        manifest = pipeline.show(store, service, build)
        made = signatures.sign(store, manifest, signer, expires=_until(valid_days))
        typer.echo(made.model_dump_json() if as_json else f"{service} {build} is {_said(made)}")


@builds.command("revoke")
def revoke(
    service: Service,
    build: BuildName,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
    even_served: Annotated[
        bool, typer.Option("--even-served", help="Although clients are being served by one of them.")
    ] = False,
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """No host starts BUILD any more, nor a build signed before it. What runs goes on; hosts never forget."""
    from pinrail.connect import barrier_service
    from pipeline import signatures

    with _store(directory) as store, barrier_service(directory, "admin") as client:
        found = signatures.counters(store, service)
        if build not in found:
            raise CommandError(f"{service} {build} is not signed: there is nothing to revoke", 1)
        below = found[build] + 1
        revoked = sorted(b for b, counter in found.items() if counter < below)
        seen = client.service(service)
        served = sorted(set(revoked) & set(seen["plan"]["serving"]))
        if served and not even_served:
            raise CommandError(
                f"{', '.join(served)} would be revoked and is served: a host that restarts would not start it again; "
                "release a later build first, or say --even-served",
                1,
            )
        if seen["config"]["revoked_below"] < below:
            config = {**seen["config"], "revoked_below": below}
            client.configure(service, config, reason or f"revoke {build}", seen["plan"]["epoch"])
        if as_json:
            typer.echo(json.dumps({"service": service, "revoked_below": below, "revoked": revoked}))
        else:
            typer.echo(f"no host starts these builds of {service} any more: {', '.join(revoked)}")


@builds.command("key")
def key_(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the file must not be there yet.")],
    as_json: Json = False,
) -> None:
    """Make a key to sign builds with; prints its public half, which hosts pin (signing_keys)."""
    from pipeline import signatures

    with reported():
        public = signatures.new_key(file).public
        typer.echo(json.dumps({"id": public.id, "public": public.text}) if as_json else public.text)


@builds.command("list")
def list_(service: Service, directory: Dir = None, as_json: Json = False) -> None:
    """All builds of a service, the newest first."""
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
            show_table(table)


@builds.command("show")
def show(service: Service, build: BuildName, directory: Dir = None, as_json: Json = False) -> None:
    """One build's manifest, and who signed it."""
    from pipeline import publish as pipeline
    from pipeline import signatures

    with _store(directory) as store:
        manifest = pipeline.show(store, service, build)
        signed = signatures.read(store, service, build)
        if as_json:
            typer.echo(json.dumps({**manifest.model_dump(mode="json"), "signatures": [s.model_dump() for s in signed]}))
        else:
            _print(manifest)
            for s in signed:
                typer.echo(f"{'signature':>9}  {_said(s)}")


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
