"""What a person and a program are given at the end, and the picture."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from pinrail.demo import check
from pinrail.demo.check import Mark, Promise, Release
from pinrail.demo.observe import Kind, Record
from pinrail.demo.picture import draw
from pinrail.demo.report import show
from pinrail.demo.result import Result, Way

SVG = "{http://www.w3.org/2000/svg}"


def way(kind: check.Way, *, foreign: int = 0, failed: int = 0, error: str | None = None) -> Way:
    """Ten seconds: one release at 2 s, answered by the other version ``foreign`` times at 3 s; a rollback at 8 s."""
    releases = (
        Release("A", "b", 2, None if error else 5, ("w",), steps={"queued": 0.1, "installing": 2.0}, error=error),
        Release("rollback", "x", 8, 8.1, rollback=True, steps={"rolling_back": 0.03}),
    )

    def record(at: float, **more: object) -> Record:
        base = Record(at, at, 1, 1, Kind.FEED, "edge-1", pin="x", status=200, body="x", said="x")
        return replace(base, **more)  # type: ignore[arg-type]

    records = [
        *(record(float(second)) for second in range(10)),
        *(record(3.5, body="b", said="b") for _ in range(foreign)),
        *(record(3.6, status=503, body=None) for _ in range(failed)),
        record(6, kind=Kind.DOCUMENT, pin=None, body="b", said="b"),
        record(9, kind=Kind.DOCUMENT, pin=None, body="x", said="x"),
    ]
    records.sort(key=lambda r: r.ended)
    return Way("ngapp", "x", releases, tuple(records), check.judge(records, releases, "x", kind))


def result(*, ok: bool = True) -> Result:
    pinned = way(check.Way.PINNED, foreign=0 if ok else 2)
    return Result(
        way(check.Way.ROLLING, foreign=7, failed=2),
        pinned,
        tuple(check.promises(pinned.judged, pinned.releases, [])),
        Path("/somewhere/flips.svg"),
    )


def text(found: Result) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_table_says_how_both_ways_went() -> None:
    shown = text(result())
    assert "Ordinary rolling deploy: 7 flip-flops, 2 failed requests." in shown
    assert "Pinrail: no flip-flops, no failed requests." in shown
    assert "Every promise held." in shown
    assert "install 2.00 s" in shown
    assert "what failed, ordinary rolling deploy: 2 feed 503" in shown
    assert "switch back 0.03 s" in shown
    assert "/somewhere/flips.svg" in shown
    assert shown.count("✓") == 7
    assert "✗" not in shown


def test_a_broken_promise_is_named() -> None:
    shown = text(result(ok=False))
    assert "✗ no request was answered by another version while its own was being" in shown
    assert "2 answered by the wrong version during A (b)" in " ".join(shown.split())
    assert "Broken: fault." in shown


def test_a_release_that_never_finished_has_no_seconds() -> None:
    pinned = way(check.Way.PINNED, error="stalled")
    shown = text(replace(result(), pinned=pinned))
    assert "never" in shown


def test_the_object_is_what_was_agreed() -> None:
    found = json.loads(json.dumps(result().as_json()))
    assert {"rolling", "pinned", "ok", "broken", "picture"} <= set(found)
    assert found["ok"] is True
    assert found["broken"] == []
    first = found["rolling"]["releases"][0]
    assert {
        k: first[k] for k in ("release", "build", "requests", "documents", "forced", "fault", "back", "failed")
    } == {
        "release": "A",
        "build": "b",
        "requests": 18,
        "documents": 1,
        "forced": 0,
        "fault": 7,
        "back": 0,
        "failed": 2,
    }
    assert first["seconds"] == pytest.approx(3)
    assert first["steps"] == {"queued": 0.1, "installing": 2.0}


def test_the_object_names_what_broke() -> None:
    found = result(ok=False).as_json()
    assert found["ok"] is False
    assert [b.split(":")[0] for b in found["broken"]] == ["fault"]


def test_ok_needs_every_promise() -> None:
    assert not replace(result(), promises=(Promise("a", "b"), Promise("c", "d", "broken"))).ok


# --- the picture -------------------------------------------------------------------------------------------------


def test_flips_are_drawn_in_the_second_in_which_they_were_seen() -> None:
    assert way(check.Way.ROLLING, foreign=7).per_second(Mark.FAULT) == [0, 0, 0, 7, 0, 0, 0, 0, 0, 0]


def test_the_picture_is_svg_with_both_ways_and_their_numbers() -> None:
    found = result()
    root = ElementTree.fromstring(draw(found.rolling, found.pinned))  # noqa: S314  (our own)
    words = " ".join("".join(e.itertext()) for e in root.iter(f"{SVG}text"))
    assert "7 flip-flops, 2 failed requests" in words
    assert "Pinrail: 0 flip-flops, 0 failed requests" in words
    assert len(list(root.iter(f"{SVG}polyline"))) == 2
    tips = [e.text or "" for e in root.iter(f"{SVG}title")]
    assert "A (b): 3.0 s" in tips
    assert any(tip.startswith("A: installing 2.00 s") for tip in tips)


def test_the_line_stays_inside_the_picture() -> None:
    found = result()
    root = ElementTree.fromstring(draw(found.rolling, found.pinned))  # noqa: S314  (our own)
    for line in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        assert all(64 <= x <= 936 and 104 <= y <= 300 for x, y in points)


def test_a_picture_of_nothing_can_be_drawn() -> None:
    nothing = Way("ngapp", "x", (), (), check.judge([], [], "x", check.Way.PINNED))
    ElementTree.fromstring(draw(nothing, nothing))  # noqa: S314  (our own)
