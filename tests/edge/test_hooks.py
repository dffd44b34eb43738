"""The operator's hooks: real programs, run beside the loop. What goes wrong in one is said and holds up nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.config import Hook
from edge.hooks import Commit, Hooks
from tests.conftest import eventually
from tests.edge.bed import Edge, World
from tests.edge.steps import committed, first, offered

COMMIT = Commit("app", 7, "B", "A")


class Bed:
    def __init__(self, *hooks: Hook) -> None:
        self.ended: list[tuple[str, bool]] = []
        self.hooks = Hooks("edge-1", hooks, lambda program, good: self.ended.append((program, good)))
        self.hooks.start()

    def run(self, ends: int = 1) -> None:
        """One commit; until ``ends`` hooks have ended in all."""
        self.hooks.committed(COMMIT)
        eventually("they have ended", lambda: len(self.ended) >= ends)


@pytest.fixture
def made() -> Iterator[list[Bed]]:
    beds: list[Bed] = []
    yield beds
    for bed in beds:
        bed.hooks.stop()
        assert not bed.hooks.is_alive()


def hook(script: str, seconds: float = 30) -> Hook:
    return Hook(argv=("/bin/sh", "-c", script), seconds=seconds)


def test_it_knows_the_commit_and_nothing_of_the_agents_environment(
    made: list[Bed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    made.append(Bed(hook(f"env > {tmp_path}/seen; chmod 600 {tmp_path}/seen")))
    made[0].run()
    assert made[0].ended == [("/bin/sh", True)]
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    assert {k: v for k, v in seen.items() if k.startswith("PINRAIL_")} == {
        "PINRAIL_EDGE": "edge-1",
        "PINRAIL_SERVICE": "app",
        "PINRAIL_EPOCH": "7",
        "PINRAIL_DEFAULT": "B",
        "PINRAIL_PREVIOUS": "A",
    }
    assert "A_SECRET" not in seen
    assert made[0].hooks.fault("app") is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (hook("echo no such cache >&2; exit 3"), "exit 3: no such cache"),
        (hook("sleep 60 & sleep 60", 0.3), "was killed"),
        # What left the process group and holds the output open.
        (hook("setsid sleep 20 & sleep 0", 0.3), "was killed"),
        (hook("yes", 0.3), "was killed"),
        (Hook(argv=("/no/such/program",)), "No such file"),
    ],
)
def test_what_goes_wrong_is_said(made: list[Bed], wrong: Hook, says: str) -> None:
    made.append(Bed(wrong, hook("true")))
    made[0].run(2)
    assert made[0].ended == [(wrong.argv[0], False), ("/bin/sh", True)]
    said = made[0].hooks.fault("app") or ""
    assert wrong.argv[0] in said and says in said and "epoch 7" in said


def test_it_is_said_until_a_commits_hooks_all_go_well(made: list[Bed], tmp_path: Path) -> None:
    made.append(Bed(hook(f"test -e {tmp_path}/fixed")))
    made[0].run()
    eventually("it is said", lambda: made[0].hooks.fault("app"))
    (tmp_path / "fixed").touch()
    made[0].run(2)
    eventually("it is forgotten", lambda: made[0].hooks.fault("app") is None)


def test_a_hook_that_hangs_delays_no_commit_and_too_many_are_left_out(made: list[Bed]) -> None:
    made.append(Bed(hook("sleep 60", 60)))
    for _ in range(150):
        made[0].hooks.committed(COMMIT)  # returns at once, or this test would take hours
    assert made[0].ended.count(("/bin/sh", False)) >= 49
    assert "left out" in (made[0].hooks.fault("app") or "")


def test_after_a_switch_they_run_and_a_failing_one_is_acknowledged_and_changes_nothing(
    world: World, edge: Edge, tmp_path: Path
) -> None:
    note = (
        f"open({str(tmp_path / 'noted')!r}, 'a').write(' '.join(e[k] for k in sorted(e) if 'PINRAIL' in k) + chr(10))"
    )
    edge.configure(
        on_commit=[
            {"argv": [sys.executable, "-c", f"import os; e = os.environ; {note}"], "seconds": 30},
            {"argv": ["sh", "-c", "echo out of order; exit 1"], "seconds": 30},
            {"argv": ["sleep", "600"], "seconds": 600},
        ]
    )
    first(world, edge)
    plan = offered(world, edge)
    world.plan(committed(plan, "A"))
    eventually("the switch is acknowledged", lambda: edge.acked(3))
    assert edge.ask("/").version == "B"
    eventually("the failure is acknowledged", lambda: "out of order" in (edge.ack().error or ""))
    assert edge.ack().applied == 3
    assert edge.metrics()['pinrail_edge_hooks_total{edge="edge-1",hook="sh",result="failed"}'] >= 1
    # PINRAIL_DEFAULT, EDGE, EPOCH, PREVIOUS, SERVICE; the hook that hangs holds up those of later commits only.
    assert (tmp_path / "noted").read_text().splitlines()[0] == "A edge-1 1  app"
