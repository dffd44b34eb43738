"""The compose file and its knobs as they are written, without an engine."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

COMPOSE = Path(__file__).parents[2] / "compose"
FILE = (COMPOSE / "compose.yaml").read_text()
USED = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", FILE))
LINES = (COMPOSE / ".env.example").read_text().splitlines()
KNOBS = dict(line.split("=", 1) for line in LINES if line and not line.startswith("#"))


def test_every_knob_is_in_the_example_with_what_it_is_when_left_out() -> None:
    assert USED == KNOBS
    assert len(KNOBS) > 15


def test_no_variable_is_used_that_has_no_default() -> None:
    every = set(re.findall(r"\$\{(\w+)", FILE))
    assert every == set(USED)


def test_each_knob_is_explained_right_above() -> None:
    bare = [line for above, line in itertools.pairwise(LINES) if line in knobs() and above[:2] != "# "]
    assert bare == []


def test_an_upgrade_by_the_docs_goes_through_every_part_that_runs_pinrail() -> None:
    written = re.search(r"for part in ([^;]+);", (COMPOSE.parent / "docs" / "compose.md").read_text())
    assert written is not None
    services = re.findall(r"^  (\S+):\n    <<: \*(?:part|zookeeper|barrier|edge-\w+|host)$", FILE, re.M)
    assert sorted(written[1].split()) == sorted(services)
    assert len(services) == 13


def knobs() -> set[str]:
    return {f"{name}={value}" for name, value in KNOBS.items()}
