"""Which commit a directory is of, asked of git. Never changes anything, never fails: not knowing is an answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleet.proc import ProgramTimeout, run

_DEADLINE = 10.0


@dataclass(frozen=True)
class Origin:
    commit: str | None = None
    short: str | None = None
    #: None where HEAD is on no branch, as CI's checkouts often are.
    branch: str | None = None


def origin(directory: Path) -> Origin:
    """Of the checkout that ``directory`` lies in; all None where there is no git, no checkout or no commit."""
    commit = _ask(directory, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return Origin()
    return Origin(
        commit,
        short=_ask(directory, "rev-parse", "--short", "HEAD"),
        branch=_ask(directory, "symbolic-ref", "--quiet", "--short", "HEAD"),
    )


def _ask(directory: Path, *args: str) -> str | None:
    # A hook's GIT_DIR would answer for another checkout than the one asked about.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        result = run(("git", "-C", str(directory), *args), deadline=_DEADLINE, env=env)
    except (FileNotFoundError, ProgramTimeout):
        return None
    words = result.output.split()
    return words[-1] if result.code == 0 and words else None  # a warning may come before
