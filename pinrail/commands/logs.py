"""``pinrail logs``: what the local fleet's parts say, as one."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinrail.errors import CommandError, reported

if TYPE_CHECKING:
    from pinrail.local.logs import Entry

#: Seconds between looks at the files.
_EVERY = 0.2
_LAST = 100


def logs(
    part: Annotated[list[str] | None, typer.Argument(help="Parts; all where none is named.")] = None,
    service: Annotated[str | None, typer.Option(help="Lines about this service only.")] = None,
    rollout: Annotated[int | None, typer.Option(min=1, help="Lines of this rollout only (of --service).")] = None,
    since: Annotated[str | None, typer.Option(help="Not before: 90s, 10m, 2h, 1d ago, or a time.")] = None,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", min=1, help=f"The last lines; {_LAST} unless something else says which."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="The fleet's directory; else $PINRAIL_DIR, else .pinrail here.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """The logs of all parts, merged by time."""
    with reported():
        from pinrail.local import logs as files
        from pinrail.local import state

        where = state.directory(directory) / "logs"
        known = files.parts(where)
        if not known:
            raise CommandError(f"there are no logs in {where}")
        if unknown := [p for p in part or () if p not in known]:
            raise CommandError(f"there is no log of {unknown[0]!r}; there are {', '.join(known)}", 2)
        chosen = {p: known[p] for p in part or known}
        try:
            earliest = files.since(since, time.time()) if since else None
        except ValueError as e:
            raise CommandError(f"--since {since!r}: give 90s, 10m, 2h, 1d or a time such as 2026-01-31T09:00", 2) from e
        wanted = files.Wanted(service, rollout, earliest)
        width = max(map(len, chosen))

        def show(entry: Entry) -> None:
            typer.echo(_json(entry) if as_json else f"{entry.part:<{width}}  {entry.text}")

        parts = [files.Log(p, path) for p, path in chosen.items()]
        found = filter(wanted, files.merged([log.kept() for log in parts]))
        most = lines or (None if service or rollout or since else _LAST)
        for entry in deque(found, maxlen=most):
            show(entry)
        try:
            while follow:
                time.sleep(_EVERY)
                for entry in filter(wanted, files.merged([log.added(time.time()) for log in parts])):
                    show(entry)
        except KeyboardInterrupt:
            pass
        for entry in filter(wanted, files.merged([log.end(time.time()) for log in parts])):
            show(entry)
        for log in parts:
            log.close()


def _json(entry: Entry) -> str:
    line = entry.line
    said = {"level": line.level, "text": line.sentence, "pairs": dict(line.pairs)} if line else {"text": entry.text}
    return json.dumps({"part": entry.part, "at": line.at if line else None, **said}, ensure_ascii=False)


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Local fleet")(logs)
