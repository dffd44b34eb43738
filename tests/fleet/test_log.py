"""The format of a log line: what was written can be read again, and nobody's words become another line or pair."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import log, loop
from fleet.loop import Said, Trouble, Wake


def written(sentence: str, **pairs: object) -> str:
    at = {"timestamp": "2026-01-31T09:00:00.000001Z", "level": "info", "event": sentence}
    return log._render(None, "", at | pairs)


@given(st.text(), st.dictionaries(st.sampled_from(["why", "service", "rollout", "error"]), st.text(), max_size=4))
def test_what_is_written_is_read_again_whatever_it_says(sentence: str, pairs: dict[str, str]) -> None:
    text = written(sentence, **pairs)
    first, *more = text.split("\n")
    line = log.parse(first)
    assert line is not None
    assert line.pairs == pairs
    assert all(m.startswith("    ") for m in more)


def test_words_from_outside_are_neither_pairs_nor_lines() -> None:
    forged = "x  rollout=3 service=shop\n2026-01-31T09:00:00Z info    fine  rollout=3"
    text = written(forged, rollout=17, why=forged)
    lines = [log.parse(line) for line in text.split("\n")]
    assert [(line.pairs["rollout"] if line else None) for line in lines] == ["17", None]


@pytest.mark.parametrize("text", ["", "junk", "2026-01-31", "ts=2026-01-31T09:00:00Z level=warn", "    more of it"])
def test_what_others_wrote_is_no_line(text: str) -> None:
    assert log.parse(text) is None


PROGRAM = """
import threading
from fleet import log
log.configure(edge="edge-1")
log.belongs("shop", 17)
say = log.get()
say.info("a", service="shop")
say.info("b", service="shop", rollout=18)
say.info("c", service="other")
thread = threading.Thread(target=lambda: say.info("d", service="shop"))
thread.start(); thread.join()
log.belongs("shop", None)
say.info("e", service="shop")
try:
    raise OSError("away")
except OSError:
    say.error("f", exc_info=True)
"""


def test_a_line_about_a_service_carries_its_rollout_in_every_thread() -> None:
    done = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, text=True, timeout=30, check=True)
    lines = [line for line in map(log.parse, done.stderr.splitlines()) if line]
    assert [(line.sentence, line.pairs.get("rollout")) for line in lines] == [
        ("a", "17"),
        ("b", "18"),
        ("c", None),
        ("d", "17"),
        ("e", None),
        ("f", None),
    ]
    assert {line.pairs["edge"] for line in lines} == {"edge-1"}
    assert done.stderr.endswith("\n    OSError: away\n")


class Agent:
    def __init__(self, wake: Wake, *steps: str | Exception) -> None:
        self.wake, self.steps = wake, list(steps)

    def cycle(self) -> str:
        step = self.steps.pop(0)
        if not self.steps:
            self.wake.stop()
        if isinstance(step, Exception):
            raise step
        return step


def test_of_a_cycle_each_services_sentence_is_a_line_of_its_own_when_it_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, str, str]] = []

    class Log:
        def info(self, text: str, service: str = "") -> None:
            told.append(("info", service, text))

        def warning(self, text: str, service: str = "") -> None:
            told.append(("warning", service, text))

    monkeypatch.setattr(loop, "_log", Log())
    wake = Wake()
    steps = (
        Said({"a": "a: 1", "b": "b: 1"}),
        Said({"a": "a: 1", "b": "b: 2"}),
        Trouble(Said({"b": "b: away"})),
        Trouble("all is away"),
        Said({}, otherwise="nothing"),
    )
    loop.run(Agent(wake, *steps), wake, every=0.001, backoff=0.001)
    assert told == [
        ("info", "a", "a: 1"),
        ("info", "b", "b: 1"),
        ("info", "b", "b: 2"),
        ("warning", "b", "b: away"),
        ("warning", "", "all is away"),
        ("info", "", "nothing"),
    ]
    assert str(Said({"a": "a: 1", "b": "b: 1"})) == "a: 1; b: 1"
    assert str(Trouble(Said({"b": "b: away"}))) == "b: away"
