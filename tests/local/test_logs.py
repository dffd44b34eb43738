"""The parts' logs as one: merged by time whatever is in the files, followed through rotations, filtered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinrail.local import logs
from pinrail.local.logs import Log, Reader, Wanted
from tests.conftest import eventually
from tests.local.conftest import run


def line(second: int, text: str, **pairs: object) -> str:
    said = " ".join(f"{k}={v}" for k, v in pairs.items())
    return f"2026-01-31T09:00:{second:02d}.000000Z info    {text}" + (f"  {said}" if said else "") + "\n"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    directory = tmp_path / "logs"
    directory.mkdir()
    (directory / "edge-1.log.1").write_text(line(1, "older", service="shop", rollout=16))
    (directory / "edge-1.log").write_text(
        line(3, "committed", service="shop", rollout=17)
        + "    and what more there is to it\n"
        + "Traceback of somebody\n"
        + line(6, "of another", service="other", rollout=17)
    )
    (directory / "host-1.log").write_bytes(
        b"\xff\xfe junk \x00 before anything\n"
        + line(2, "done", service="shop", rollout=17).encode()
        + line(5, "its clock went on", rollout=170).encode()
        + line(4, "and back", service="shop", rollout=17).encode()
        + b"half a line"
    )
    (directory / "prometheus.log").write_text("ts=2026-01-31T09:00:02.500Z caller=main.go level=warn\n")
    (directory / "zookeeper.log").write_text("99 [main] WARN it never says when\n")
    return directory


def shown(where: Path, *words: object) -> list[str]:
    done = run("logs", "--dir", where.parent, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def sentences(where: Path, *words: object) -> list[tuple[str, str]]:
    return [(e["part"], e["text"]) for e in map(json.loads, shown(where, *words, "--json"))]


def test_all_parts_are_merged_by_time_with_their_names(where: Path) -> None:
    assert sentences(where) == [
        ("edge-1", "older"),
        ("host-1", "\ufffd\ufffd junk \x00 before anything"),
        ("host-1", "done"),
        ("prometheus", "ts=2026-01-31T09:00:02.500Z caller=main.go level=warn"),
        ("edge-1", "committed"),
        ("edge-1", "    and what more there is to it"),
        ("edge-1", "Traceback of somebody"),
        ("host-1", "its clock went on"),
        ("host-1", "and back"),
        ("edge-1", "of another"),
        ("zookeeper", "99 [main] WARN it never says when"),
        ("host-1", "half a line"),
    ]
    assert shown(where, "-n", 1, "prometheus", "edge-1")[0].split()[:1] == ["edge-1"]


def test_one_rollout_of_one_service_through_all_parts(where: Path) -> None:
    assert sentences(where, "--rollout", 17, "--service", "shop") == [
        ("host-1", "done"),
        ("edge-1", "committed"),
        ("edge-1", "    and what more there is to it"),
        ("host-1", "and back"),
    ]
    assert sentences(where, "edge-1", "--rollout", 16) == [("edge-1", "older")]
    assert sentences(where, "--service", "other") == [("edge-1", "of another")]
    assert sentences(where, "--rollout", 3) == []
    line = json.loads(shown(where, "--rollout", 16, "--json")[0])
    assert (line["at"], line["level"]) == ("2026-01-31T09:00:01.000000Z", "info")
    assert line["pairs"] == {"service": "shop", "rollout": "16"}


def test_since_a_time_and_since_a_while(where: Path) -> None:
    assert ("edge-1", "committed") not in sentences(where, "--since", "2026-01-31T09:00:04Z")
    assert ("edge-1", "of another") in sentences(where, "--since", "2026-01-31T09:00:04Z")
    assert ("edge-1", "of another") not in sentences(where, "--since", "10m")
    refused = run("logs", "--dir", where.parent, "--since", "yesterday")
    assert (refused.returncode, "give 90s, 10m" in refused.stderr) == (2, True)


def test_a_part_that_is_none_is_named(where: Path, tmp_path: Path) -> None:
    refused = run("logs", "--dir", where.parent, "edge-9")
    assert refused.returncode == 2
    assert "there is no log of 'edge-9'; there are edge-1, host-1, prometheus, zookeeper" in refused.stderr
    assert "there are no logs in" in run("logs", "--dir", tmp_path / "nowhere").stderr


def test_following_goes_on_through_a_rotation_and_waits_for_the_end_of_a_line(where: Path) -> None:
    path = where / "edge-1.log"
    log = Log("edge-1", path)
    assert [e.text for e in log.kept()][-1].endswith("rollout=17")
    with path.open("a") as f:
        f.write(line(7, "last before it", rollout=17) + "2026-01-31T09:00:08.0")
    assert [e.line.sentence for e in log.added(0) if e.line] == ["last before it"]
    with path.open("a") as f:
        f.write("00000Z info    whole now  rollout=17\n" + line(9, "in the old file"))
    path.rename(where / "edge-1.log.1")
    path.write_text(line(10, "in the new one") + "in the midst of")
    assert [e.line.sentence for e in log.added(0) if e.line] == ["whole now", "in the old file", "in the new one"]
    assert log.added(0) == []
    assert [e.text for e in log.end(0)] == ["in the midst of"]
    path.write_text(line(11, "cut short and begun anew"))
    assert [e.line.sentence for e in log.added(0) if e.line] == ["cut short and begun anew"]
    log.close()


def test_the_command_follows_until_it_is_interrupted(where: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    following = start("logs", "--dir", where.parent, "--follow", "--rollout", 17, "--service", "shop")
    assert following.stdout is not None
    first = [following.stdout.readline() for _ in range(4)]
    assert "and back" in first[-1]
    with (where / "host-2.log").open("w") as later, (where / "edge-1.log").open("a") as f:
        later.write(line(20, "a part that nobody knew then", service="shop", rollout=17))
        f.write(line(21, "not of it", service="shop", rollout=18) + line(22, "of it", service="shop", rollout=17))
    assert following.stdout.readline().endswith("of it  service=shop rollout=17\n")
    following.send_signal(2)
    eventually("it ends", lambda: following.poll() is not None, 20)
    assert following.returncode == 0


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 59), st.booleans()), max_size=12), max_size=4),
    st.integers(1, 40),
)
def test_no_line_is_lost_and_each_part_keeps_its_order(files: list[list[tuple[int, bool]]], size: int) -> None:
    read = []
    for number, seconds in enumerate(files):
        texts = [line(s, f"{number}.{n}") if dated else f"{number}.{n}\n" for n, (s, dated) in enumerate(seconds)]
        data = "".join(texts).encode()
        reader = Reader(str(number))
        read.append([e for at in range(0, len(data), size) for e in reader.feed(data[at : at + size])])
        assert reader.end() == []
    merged = list(logs.merged(read))
    assert [e.at for e in merged] == sorted(e.at for e in merged)
    for number, seconds in enumerate(files):
        own = [(e.line.sentence if e.line else e.text) for e in merged if e.part == str(number)]
        assert own == [f"{number}.{n}" for n in range(len(seconds))]


def test_a_line_without_end_is_cut_and_takes_no_filter_with_it() -> None:
    reader = Reader("x")
    entry = reader.feed(b"x" * (logs.MOST + 10) + b"\n")[0]
    assert len(entry.text) == logs.MOST
    assert not Wanted(rollout=1)(entry)
