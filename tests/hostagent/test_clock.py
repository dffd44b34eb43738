"""What a host tries again and again, and what it does when its clock is set: seconds are counted, not read off."""

from __future__ import annotations

import itertools
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.faults.fleet import _compile as clock_of
from tests.hostagent.fleet import Host, Load, Machine
from tests.s3_fixtures import S3Server

HOUR, DAY = 3600, 86400


class Clock:
    """The wall clock of one host's agent."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0)

    def set(self, seconds: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds}\n")
        fresh.rename(self.file)


@pytest.fixture(scope="module")
def clocked(short_tmp: Path, machine: Machine, s3: S3Server) -> Iterator[tuple[Machine, Clock]]:
    library = clock_of(short_tmp / "clock.so")
    if library is None:
        pytest.skip("no C compiler for the clock")
    clock = Clock(short_tmp / "clock")
    made = Machine(
        short_tmp / "t", machine.zk, s3.config("hostagent"), address=machine.address[:-1] + "6", name="host-6"
    )
    made.start_server()
    made.environment |= {"LD_PRELOAD": str(library), "PINRAIL_TEST_CLOCK": str(clock.file)}
    made.start_agent()
    yield made, clock
    made.stop()


@pytest.fixture
def host(clocked: tuple[Machine, Clock], request: pytest.FixtureRequest) -> Iterator[Host]:
    clocked[1].set(0)
    made = Host(clocked[0], "clock" + str(abs(hash(request.node.name)) % 10**6))
    made.configure()
    made.publish("a1")
    made.enable(1, "a1")
    made.reached(1, 40)
    yield made
    clocked[1].set(0)
    made.tell()
    made.remove()


def failures(host: Host, step: str) -> int:
    with urllib.request.urlopen(f"http://{host.machine.metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for line in text.splitlines():
        if line.startswith(f'pinrail_host_step_failures_total{{step="{step}"}}'):
            return int(float(line.rpartition(" ")[2]))
    return 0


def next_failure(host: Host, step: str, seconds: float) -> float:
    """When the next one is counted (monotonic)."""
    before = failures(host, step)
    eventually(f"{step} fails once more", lambda: failures(host, step) > before, seconds)
    return time.monotonic()


def test_what_fails_is_tried_ever_more_slowly_whatever_the_clock_says_and_at_once_for_a_new_serial(
    host: Host, clocked: tuple[Machine, Clock]
) -> None:
    _, clock = clocked
    before = host.pids("a1")
    with Load(host.endpoint(0)) as load:
        host.digests["b1"] = "sha256:" + "1" * 64
        host.enable(2, "b1", "a1")
        host.failed(2, "there is no build b1")
        times = [next_failure(host, "fetch", 20)]
        for shift in (HOUR // 10, -HOUR // 10, 0):
            clock.set(shift)
            times.append(next_failure(host, "fetch", 60))
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert all(later > 1.5 * sooner for sooner, later in itertools.pairwise(gaps)), gaps
        # The next one would come after twice the last; a new serial does not wait for that.
        begun = time.monotonic()
        host.publish("b1")
        host.enable(3, "b1", "a1")
        host.reached(3, 40)
        assert time.monotonic() - begun < 2 * gaps[-1]
    assert load.failures == [] and host.pids("a1") == before


@pytest.mark.parametrize("shift", [DAY, -DAY], ids=["a day ahead", "a day behind"])
def test_with_a_clock_that_is_wrong_by_a_day_what_serves_serves_and_the_rest_waits(
    host: Host, clocked: tuple[Machine, Clock], shift: int
) -> None:
    """The object store takes no request of another day, and says so; nothing else looks at the clock."""
    _, clock = clocked
    before = host.pids("a1")
    host.publish("b1")
    with Load(host.endpoint(0)) as load:
        clock.set(shift)
        host.enable(2, "b1", "a1")
        said = host.failed(2, "S3 at", 60).error
        assert said and "clock" in said, "it says what to do"
        assert host.member("a1") and host.pids("a1") == before
        clock.set(0)
        host.reached(2, 60)
    assert load.failures == [] and set(load.answers) == {"a1"}
    assert host.pids("a1") == before and host.member("b1")
