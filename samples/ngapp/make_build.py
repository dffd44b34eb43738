#!/usr/bin/env python3
"""Write one build of the sample service into a directory.

    make_build.py EDITION DIRECTORY [--never-ready]

Another edition (a number or a word) is another build: its own colour and greeting, so its script's hash differs. The
same edition is the same tree. Needs nothing but Python's standard library; imports nothing of Pinrail.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent / "app"
FILES = ("serve.py", "ngapp.py", "page.html", "app.js")

_GREETINGS = (
    "This page came from build",
    "You are looking at build",
    "Served, and kept, by build",
    "Hello from build",
)


class CannotMake(Exception):
    """One sentence."""


def edition_of(edition: str) -> dict[str, str]:
    """What sets an edition apart. Colours dark enough for white letters."""
    drawn = hashlib.sha256(edition.encode()).digest()
    hue = int.from_bytes(drawn[:2], "big") % 360
    return {
        "edition": edition,
        "colour": f"hsl({hue} 55% 34%)",
        "greeting": _GREETINGS[drawn[2] % len(_GREETINGS)],
    }


def make(edition: str | int, directory: Path, *, never_ready: bool = False) -> Path:
    """The tree of ``edition`` in ``directory``, which must not be there yet, or be empty. Raises CannotMake."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise CannotMake(f"{directory} is not empty")
        for name in FILES:
            shutil.copyfile(APP / name, directory / name)
        (directory / "edition.json").write_text(json.dumps(edition_of(str(edition)), indent=2) + "\n")
        if never_ready:
            (directory / "NEVER_READY").write_text("A build with this file answers /healthz with 503 for ever.\n")
    except OSError as e:
        raise CannotMake(f"cannot write {e.filename or directory}: {e.strerror}") from e
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one build of the sample service into a directory.")
    parser.add_argument("edition", help="a number or a word; another one is another build")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--never-ready", action="store_true", help="a build whose /healthz is 503 for ever")
    args = parser.parse_args()
    try:
        make(args.edition, args.directory, never_ready=args.never_ready)
    except CannotMake as e:
        sys.exit(f"make_build: {e}")


if __name__ == "__main__":
    main()
