"""``pinrail``: assembles the commands. Errors become one line on stderr and an exit code; see ``pinrail.errors``."""

from __future__ import annotations

import typer

from pinrail.commands import barrier, build, container, demo, doctor, edge, fleet, host, logs, page, release

app = typer.Typer(
    name="pinrail",
    help="Skew protection and atomic deploys for people who run their own edge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
fleet.add_to(app)
logs.add_to(app)
release.add_to(app)
page.add_to(app)
build.add_to(app)
edge.add_to(app)
host.add_to(app)
barrier.add_to(app)
doctor.add_to(app)
demo.add_to(app)
container.add_to(app)


def main() -> None:
    app()
