"""Both ways in a row on fake edges, and what a signal does in the middle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.loop import Trouble
from pinrail.demo.browser import Target
from pinrail.demo.check import Way
from pinrail.demo.interrupt import until_signal
from pinrail.demo.load import Size
from pinrail.demo.observe import Log
from pinrail.demo.result import Result
from pinrail.demo.run import demonstrate
from pinrail.local.signals import Interrupted
from tests.demo.fake import FakeEdge, FakeFleet
from tests.demo.test_sequence import FAST, FakeControl

#: Every browser is given a page of each release in this time, on a machine that is busy with other things too.
PAUSES = replace(FAST, after=1.2, deadline=20.0)


class FakeGround:
    """One edge a service; the rolling one serves whatever it likes, as a mixed pool does."""

    def __init__(self, rolling: FakeEdge, pinned: FakeEdge, first: tuple[str, str] | None) -> None:
        self._edges = {Way.ROLLING: rolling, Way.PINNED: pinned}
        self._controls = {
            Way.ROLLING: FakeControl(rolling.fleet, first or ("", ""), nothing=first is not None),
            Way.PINNED: FakeControl(pinned.fleet),
        }
        self.published: list[tuple[Way, str]] = []
        self.finished: list[Way] = []

    @property
    def metrics(self) -> Mapping[str, str]:
        return {"edge-1": f"{self._edges[Way.PINNED].url}/metrics"}

    def service(self, way: Way) -> str:
        return "ngapp" if way is Way.PINNED else "ngapp-rolling"

    def target(self, way: Way) -> Target:
        return Target(way, {"edge-1": self._edges[way].url})

    def configure(self, way: Way) -> None:
        pass

    def publish(self, way: Way, build: str) -> None:
        self.published.append((way, build))

    def control(self, way: Way) -> FakeControl:
        return self._controls[way]

    def done(self, way: Way) -> None:
        self.finished.append(way)


def silent(_: Way) -> Callable[[str, Log | None], None]:
    return lambda what, log: None


def demo(tmp_path: Path, first: tuple[str, str] | None = None) -> tuple[Result, FakeGround]:
    async def main() -> tuple[Result, FakeGround]:
        async with FakeEdge(FakeFleet(lie="flip")) as rolling, FakeEdge(FakeFleet()) as pinned:
            ground = FakeGround(rolling, pinned, first)
            size = Size(browsers=6, think=0.004, ramp_up=0.01)
            picture = tmp_path / "flips.svg"
            return await demonstrate(ground, "t", silent, picture=picture, pauses=PAUSES, size=size), ground

    return asyncio.run(main())


def test_rolling_flips_and_pinned_does_not(tmp_path: Path) -> None:
    result, ground = demo(tmp_path)
    assert result.rolling.total.fault > 0
    assert result.pinned.total.fault == 0
    assert [r.name for r in result.rolling.releases] == ["A", "B", "C"]
    assert [r.name for r in result.pinned.releases] == ["A", "B", "C", "rollback"]
    assert ground.published == [(way, f"t-{n}") for way in (Way.ROLLING, Way.PINNED) for n in "abc"]
    assert ground.finished == [Way.ROLLING, Way.PINNED]
    assert (tmp_path / "flips.svg").read_text().startswith("<svg")


def test_the_rolling_way_breaks_no_promise_of_ours_but_its_counters_must_agree(tmp_path: Path) -> None:
    """The fake ground reads both ways' counters from the pinned edge, so the rolling ones cannot agree."""
    result, _ = demo(tmp_path)
    assert [p.name for p in result.broken] == ["counters"]
    assert all(d.startswith("rolling: ") for d in result.rolling.different)


def test_a_first_deploy_that_does_not_end_is_said(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="first deploy of t-base ended failed: given up"):
        demo(tmp_path, first=("failed", "t-base"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_is_told(number: int) -> None:
    cleaned: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        until_signal(main())
    assert caught.value.number == number
    assert cleaned == ["yes"]
    assert signal.getsignal(number) is before


def test_without_a_signal_the_result_comes_back() -> None:
    async def main() -> int:
        return 7

    assert until_signal(main()) == 7
