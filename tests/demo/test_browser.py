"""The browser against a server that a test makes lie: what it sends, what it notices, what it never hides."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from pinrail.demo import counters
from pinrail.demo.browser import Browser, Pace, Page, Target, connections
from pinrail.demo.check import EdgeCounts, Mark, Release, Way, compare, judge
from pinrail.demo.load import Size, load
from pinrail.demo.observe import Kind, Log, Record
from tests.demo.fake import FakeEdge, FakeFleet, asset_name

T = TypeVar("T")


def with_browser(
    fleet: FakeFleet, use: Callable[[Browser], Awaitable[T]], way: Way = Way.PINNED, host: str | None = None
) -> tuple[T, list[Record]]:
    """Run ``use`` with one browser and one fake edge; its result and the records."""

    async def run() -> tuple[T, list[Record]]:
        log = Log()
        async with FakeEdge(fleet) as edge, connections() as session:
            rng = random.Random(1)
            browser = Browser(
                1,
                Target(way, {"edge-1": edge.url}, host=host),
                session,
                log,
                clock=time.monotonic,
                pace=Pace(0.001, rng),
                rng=rng,
            )
            return await use(browser), log.records

    return asyncio.run(run())


async def opened(browser: Browser) -> Page:
    page = await browser.open()
    assert page is not None
    return page


# --- what it sends and reads -------------------------------------------------------------------------------------


def test_it_opens_a_page_as_a_navigation_does() -> None:
    fleet = FakeFleet()
    page, records = with_browser(fleet, opened)
    assert page == Page(1, "a", (f"{asset_name('a')}?dpl=a",), "1.a.77", 1)
    assert [(r.kind, r.body, r.said, r.generation, r.pin, r.error) for r in records] == [
        (Kind.DOCUMENT, "a", "a", 1, None, None)
    ]
    sent = fleet.seen[0].headers
    assert sent["Sec-Fetch-Dest"] == "document"
    assert "text/html" in sent["Accept"]
    assert "x-deployment-id" not in sent
    assert "Cookie" not in sent


def test_its_xhrs_carry_the_pin_and_the_cookie_and_its_assets_the_query() -> None:
    fleet = FakeFleet()

    async def use(browser: Browser) -> list[bool]:
        page = await opened(browser)
        requests = [browser.feed, browser.save, browser.slow, browser.stream]
        return [await request(page) for request in requests] + [await browser.asset(page, page.assets[0])]

    moved, records = with_browser(fleet, use)
    assert moved == [False] * 5
    assert [r.kind for r in records] == ["document", "feed", "save", "slow", "stream", "asset"]
    assert all(r.pin == "a" and r.error is None and r.status == 200 for r in records[1:])
    assert [r.body for r in records[1:]] == ["a", "a", "a", "a", None]
    assert all(request.headers["Cookie"] == "__dpl=1.a.77" for request in fleet.seen[1:])
    assert all(request.headers["x-deployment-id"] == "a" for request in fleet.seen[1:5])
    assert "x-deployment-id" not in fleet.seen[5].headers
    assert fleet.seen[5].query["dpl"] == "a"


def test_the_second_service_is_asked_for_by_its_host_name() -> None:
    fleet = FakeFleet()
    with_browser(fleet, opened, host="rolling.localhost")
    assert fleet.seen[0].headers["Host"] == "rolling.localhost"


def test_a_retired_pin_makes_it_move() -> None:
    fleet = FakeFleet()

    async def use(browser: Browser) -> list[bool]:
        page = await opened(browser)
        fleet.release("b")
        still = await browser.feed(page)
        fleet.release("c")
        return [still, await browser.feed(page)]

    moved, records = with_browser(fleet, use)
    assert moved == [False, True]
    assert [(r.body, r.verdict) for r in records[1:]] == [("a", "previous"), ("c", "retired")]


def test_in_a_rolling_deploy_a_foreign_answer_makes_it_reload() -> None:
    fleet = FakeFleet()

    async def use(browser: Browser) -> list[bool]:
        page = await opened(browser)
        fleet.release("b")
        fleet.lie = "flip"
        return [await browser.feed(page)]

    moved, _ = with_browser(fleet, use, Way.ROLLING)
    assert moved == [True]


# --- what it notices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "request_name", "words"),
    [
        ("sha", "save", "not the one that was sent"),
        ("truncate", "stream", "truncated"),
        ("two", "stream", "a stream of 2 builds"),
        ("text", "feed", "not the JSON"),
        ("500", "feed", None),
    ],
)
def test_a_wrong_answer_is_noticed(lie: str, request_name: str, words: str | None) -> None:
    fleet = FakeFleet()

    async def use(browser: Browser) -> None:
        page = await opened(browser)
        fleet.lie = lie
        await getattr(browser, request_name)(page)

    _, records = with_browser(fleet, use)
    judged = judge(records, [Release("A", "b", 0)], "a", Way.PINNED)
    assert Mark.FAILED in judged.marks[1]
    assert (words in (records[1].error or "")) if words else records[1].status == 500


def test_a_missing_asset_is_noticed() -> None:
    fleet = FakeFleet(lie="asset")

    async def use(browser: Browser) -> None:
        page = await opened(browser)
        await browser.asset(page, page.assets[0])

    _, records = with_browser(fleet, use)
    assert records[1].status == 404
    assert judge(records, [Release("A", "b", 0)], "a", Way.PINNED).marks[1] == {Mark.FAILED}


def test_another_build_s_asset_is_noticed() -> None:
    fleet = FakeFleet()

    async def use(browser: Browser) -> None:
        page = await opened(browser)
        fleet.release("b")
        fleet.lie = "flip"
        await browser.asset(page, page.assets[0])

    _, records = with_browser(fleet, use)
    assert records[1].error == "the asset is not the one that the page asked for"


def test_a_lying_header_is_a_fault() -> None:
    _, records = with_browser(FakeFleet(lie="header"), opened)
    assert judge(records, [Release("A", "b", 0)], "a", Way.PINNED).marks == (frozenset({Mark.FAULT}),)


def test_nobody_there_is_a_failed_request_not_an_exception() -> None:
    async def run() -> list[Record]:
        log = Log()
        async with connections() as session:
            rng = random.Random(1)
            target = Target(Way.PINNED, {"edge-1": "http://127.0.0.1:9"})
            browser = Browser(1, target, session, log, clock=time.monotonic, pace=Pace(0.001, rng), rng=rng)
            assert await browser.open() is None
        return log.records

    [record] = asyncio.run(run())
    assert record.status == 0
    assert (record.error or "").startswith("connection")


@pytest.mark.parametrize("lie", ["close", "close once"])
def test_a_request_that_the_library_repeats_is_one_without_an_answer(lie: str) -> None:
    """A kept connection that breaks under a GET: the HTTP library would try again and say nothing."""
    fleet = FakeFleet()

    async def use(browser: Browser) -> None:
        page = await opened(browser)
        fleet.lie = lie
        await browser.feed(page)

    _, records = with_browser(fleet, use)
    assert len(fleet.seen) >= 2
    assert ((records[1].error or "").partition(":")[0], records[1].status) == ("connection", 0)


# --- many of them, judged ----------------------------------------------------------------------------------------


def roll(
    lie: str | None = None, *, miscount: int = 0, way: Way = Way.PINNED
) -> tuple[list[Record], list[Release], list[str]]:
    """Three releases and a rollback under load, on two fake edges that share a fleet."""

    async def run() -> tuple[list[Record], list[Release], list[str]]:
        fleet, log, releases = FakeFleet(), Log(), []
        async with FakeEdge(fleet, "edge-1") as one, FakeEdge(fleet, "edge-2") as two:
            target = Target(way, {"edge-1": one.url, "edge-2": two.url})
            metrics = {e.name: f"{e.url}/metrics" for e in (one, two)}
            before = await counters.read(metrics, "ngapp")
            async with load(target, Size(browsers=6, think=0.002, ramp_up=0.01), log, time.monotonic, seed=7):
                await enough(log, 120)
                fleet.lie = lie
                for build in "bcd":
                    withdrawn = tuple(v for v in fleet.serving if v != fleet.default)
                    began = time.monotonic()
                    fleet.release(build)
                    releases.append(Release(build, build, began, time.monotonic(), withdrawn))
                    await enough(log, 120)
                began = time.monotonic()
                fleet.rollback()
                releases.append(Release("rollback", fleet.default, began, time.monotonic(), rollback=True))
                await enough(log, 120)
            judged = judge(log.records, releases, "a", way)
            fleet.miscount = miscount
            different = await counters.settled(
                metrics, "ngapp", before, lambda c: compare(way, log.records, judged, c), seconds=0.5
            )
        return log.records, releases, different

    return asyncio.run(run())


async def enough(log: Log, more: int) -> None:
    goal = len(log.records) + more
    for _ in itertools.repeat(None, 2000):
        if len(log.records) >= goal:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"no {more} requests within 10 s")


def totals(records: list[Record], releases: list[Release], way: Way = Way.PINNED) -> dict[str, int]:
    counts = judge(records, releases, "a", way).counts
    return {
        what: sum(getattr(c, what) for c in counts) for what in ("forced", "forced_twice", "fault", "back", "failed")
    }


def test_an_honest_fleet_breaks_nothing_and_its_counters_agree() -> None:
    records, releases, different = roll()
    assert totals(records, releases) | {"forced": 0} == dict.fromkeys(
        ("forced", "forced_twice", "fault", "back", "failed"), 0
    )
    assert different == []


@pytest.mark.parametrize(
    ("lie", "what"), [("flip", "fault"), ("header", "fault"), ("back", "back"), ("500", "failed"), ("sha", "failed")]
)
def test_a_lying_fleet_is_caught(lie: str, what: str) -> None:
    records, releases, _ = roll(lie)
    assert totals(records, releases)[what] > 0


def test_edges_that_flip_are_caught_in_a_rolling_deploy_too() -> None:
    records, releases, _ = roll("flip", way=Way.ROLLING)
    assert totals(records, releases, Way.ROLLING)["fault"] > 0


def test_edges_that_count_wrongly_are_caught() -> None:
    _, _, different = roll(miscount=5)
    assert len(different) == 2
    assert all("requests, clients sent it" in d for d in different)


def test_an_edge_without_metrics_is_left_out() -> None:
    assert asyncio.run(counters.read({"edge-1": "http://127.0.0.1:9/metrics"}, "ngapp")) == {}


def test_metrics_are_read_by_service() -> None:
    text = (
        "# TYPE pinrail_edge_requests_total counter\n"
        'pinrail_edge_requests_total{service="ngapp",edge="e",version="a",outcome="exact"} 3\n'
        'pinrail_edge_requests_total{service="ngapp",edge="e",version="b",outcome="exact"} 2\n'
        'pinrail_edge_requests_total{service="x",edge="e",version="b",outcome="fault"} 9\n'
        "# TYPE pinrail_edge_flips_total counter\n"
        'pinrail_edge_flips_total{service="ngapp",edge="e",from="a",to="b",cause="forced"} 4\n'
    )
    assert counters.since(counters.parse(text, "ngapp"), {}) == EdgeCounts(5, {"exact": 5}, 4)


def test_counters_are_compared_from_where_they_stood_and_what_has_gone_is_not_taken_off() -> None:
    """On a fleet that has seen many releases, edges forget the oldest versions in the midst of a demo."""

    def said(**requests: int) -> counters.Series:
        lines = [
            f'pinrail_edge_requests_total{{service="s",edge="e",version="{v}",outcome="exact"}} {n}'
            for v, n in requests.items()
        ]
        return counters.parse("# TYPE pinrail_edge_requests_total counter\n" + "\n".join(lines) + "\n", "s")

    before, after = said(oldest=900, b=4), said(b=5, c=2)
    assert counters.since(after, before) == EdgeCounts(3, {"exact": 3}, 0)
