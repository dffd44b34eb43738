"""The compose file and its knobs as they are written, without an engine."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

COMPOSE = Path(__file__).parents[2] / "compose"
USED = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (COMPOSE / "compose.yaml").read_text()))
LINES = (COMPOSE / ".env.example").read_text().splitlines()
KNOBS = dict(line.split("=", 1) for line in LINES if line and not line.startswith("#"))


def test_every_knob_is_in_the_example_with_what_it_is_when_left_out() -> None:
    assert USED == KNOBS
    assert len(KNOBS) > 15


def test_no_variable_is_used_that_has_no_default() -> None:
    every = set(re.findall(r"\$\{(\w+)", (COMPOSE / "compose.yaml").read_text()))
    assert every == set(USED)


def test_each_knob_is_explained_right_above() -> None:
    bare = [line for above, line in itertools.pairwise(LINES) if line in knobs() and above[:2] != "# "]
    assert bare == []


def knobs() -> set[str]:
    return {f"{name}={value}" for name, value in KNOBS.items()}
