"""The one loop, the atomic write and the bounded program."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fleet import files, loop, proc
from fleet.loop import Trouble, Wake


class Script:
    """An agent whose cycles are given; stops the loop after the last."""

    def __init__(self, wake: Wake, *steps: str | Exception) -> None:
        self.wake, self.steps, self.count = wake, list(steps), 0

    def cycle(self) -> str:
        self.count += 1
        step = self.steps.pop(0)
        if not self.steps:
            self.wake.stop()
        if isinstance(step, Exception):
            raise step
        return step


def test_trouble_is_survived_and_retried() -> None:
    wake = Wake()
    script = Script(wake, Trouble("ZooKeeper is away"), Trouble("ZooKeeper is away"), "all is well")
    loop.run(script, wake, every=0.01, backoff=0.001)
    assert script.count == 3


def test_a_thread_that_dies_takes_the_process_with_it() -> None:
    program = (
        "import sys, threading, time; from fleet import loop; loop.crash_with_any_thread()\n"
        "def quits(): sys.exit()\n"
        "def dies(): raise OSError('what nobody expects')\n"
        "t = threading.Thread(target=quits); t.start(); t.join()\n"
        "threading.Thread(target=dies).start(); time.sleep(60)"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == loop.CRASHED
    assert "what nobody expects" in done.stderr


def test_our_own_errors_end_the_process() -> None:
    wake = Wake()
    with pytest.raises(KeyError):
        loop.run(Script(wake, KeyError("bug"), "never"), wake, every=0.01)


def test_a_wake_cycles_at_once_and_a_stop_ends_it() -> None:
    wake, cycled = Wake(), threading.Semaphore(0)

    class Agent:
        def cycle(self) -> str:
            cycled.release()
            return "ok"

    thread = threading.Thread(target=loop.run, args=(Agent(), wake), kwargs={"every": 60})
    thread.start()
    assert cycled.acquire(timeout=5)
    wake()
    assert cycled.acquire(timeout=5), "a wake must not wait for the interval"
    wake.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_news_is_gathered_for_as_long_as_a_cycle_takes_and_a_stop_ends_that() -> None:
    wake, looks = Wake(), []

    class Agent:
        def cycle(self) -> str:
            looks.append(time.monotonic())
            time.sleep(0.05)  # a fleet that takes that long to look at
            wake()
            if len(looks) == 4:
                threading.Timer(0.01, wake.stop).start()
            return "ok"

    loop.run(Agent(), wake, every=60, rest=60)
    assert len(looks) == 4
    assert all(later - sooner >= 0.1 for sooner, later in itertools.pairwise(looks))


def test_a_failed_atomic_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "good"
    files.write_atomic(target, "old", mode=0o600)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        files.write_atomic(target, 7)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["good"]  # noqa: PTH208
    files.write_atomic(target, b"new")
    assert files.read_or_none(target) == b"new"
    assert files.read_or_none(tmp_path / "absent") is None


def test_a_program_past_its_deadline_dies_with_its_children(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(proc.ProgramTimeout, match=r"sh was still running after 0\.5 s"):
        proc.run(["sh", "-c", f"sleep 60 & echo $! > {pidfile}; wait"], deadline=0.5)
    pid = int(pidfile.read_text())

    def gone() -> bool:
        stat_file = Path(f"/proc/{pid}/stat")
        return not stat_file.exists() or ") Z " in stat_file.read_text()

    from tests.conftest import eventually

    eventually("the child to be killed", gone)


def test_a_programs_end_is_reported() -> None:
    result = proc.run(["sh", "-c", "echo out; echo err >&2; exit 3"], deadline=10)
    assert result.code == 3
    assert sorted(result.output.split()) == ["err", "out"]
