"""What a person sees of a rollout on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from pinrail.follow import Picture
from pipeline.client import RolloutNow
from tests.barrier.http import DIGEST


def now(state: str, *missing: tuple[str, str], **fields: object) -> RolloutNow:
    named = [{"who": who, "why": why} for who, why in missing]
    asked = {
        "number": 3,
        "service": "shop",
        "build": "C",
        "digest": DIGEST,
        "by": "ann",
        "state": state,
        "missing": named,
    }
    return RolloutNow.model_validate(asked | fields)


def drawn(picture: Picture, seen: RolloutNow) -> str:
    console = Console(file=io.StringIO(), width=110, force_terminal=True, color_system=None)
    console.print(picture(seen))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def test_it_names_whom_it_waits_for_and_how_far_it_is() -> None:
    picture = Picture()
    hosts = [(f"host-{n}", "waits for its turn") for n in (1, 2, 3, 4)]
    first = drawn(picture, now("installing", *hosts))
    assert "withdraw > install > offer > switch" in first
    assert "installing: 0 of 4 there" in first
    assert first.count("waits for its turn") == 4
    later = drawn(picture, now("installing", ("host-4", "fetch 40 %")))
    assert "installing: 3 of 4 there" in later
    assert "host-4" in later
    assert "fetch 40 %" in later
    assert "there" not in drawn(picture, now("offering")), "what nobody is waited for has no bar"
    assert "offer > ramp > switch" in drawn(picture, now("ramping", ("ramp", "held at 10 %"), ramp=[10]))


def test_many_are_counted_and_strange_words_are_words() -> None:
    many = [(f"edge-{n}", "[red]no ack[/red]") for n in range(40)]
    shown = drawn(Picture(), now("withdrawing", *many))
    assert "and 28 more" in shown
    assert "[red]no ack[/red]" in shown
