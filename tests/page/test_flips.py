"""Where the page's numbers come from: edges' counters, round by round, asked of addresses that nobody vouches for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from barrier import scrape
from barrier.flips import MARKS, ROUNDS, Counts, Mark, Series, Silent, Window, read
from edge.metrics import Metrics
from fleet.model import EdgeInfo

SHOP = frozenset({"shop"})


def said(**counts: float) -> dict[Series, float]:
    return {Series("shop", what): value for what, value in counts.items()}


def together(counts: Counts) -> dict[Series, float]:
    found: dict[Series, float] = {}
    for s, value in counts.items():
        key = Series(s.service, s.what)
        found[key] = found.get(key, 0) + value
    return found


def test_it_reads_what_an_edge_really_says() -> None:
    metrics = Metrics("edge-1")
    metrics.requests("shop", "B", "exact", False, 10)
    metrics.requests("shop", "B", "forced", True, 2)
    metrics.requests("other", "B", "fault", True, 9)
    metrics.flips("shop", "A", "B", "retired", 2)
    metrics.flips("shop", "X", "B", "retired", 1)
    text = generate_latest(metrics.registry).decode()
    assert together(read(text, "edge-1", SHOP)) == said(requests=12, forced=2, retired=3)
    assert read(text, "edge-2", SHOP) == {}  # whoever answers there is another one


@given(st.text(max_size=300))
def test_nonsense_counts_as_nothing(text: str) -> None:
    line = f'pinrail_edge_flips_total{{service="shop",edge="e",cause="{text}"}} 1\n'
    assert set(together(read(text + "\n" + line, "e", SHOP))) <= set(said(stamp=1, gone=1, newer=1, mixed=1))
    for value in ("NaN", "+Inf", "-1", "1e300", "--", "1e"):
        assert read(f'pinrail_edge_requests_total{{service="shop",edge="e",outcome="back"}} {value}', "e", SHOP) == {}


def sums(window: Window, what: str) -> list[float]:
    return [getattr(r, what) for r in window.view("shop", 0).rounds]


def test_a_round_holds_what_was_counted_since_the_one_before() -> None:
    window = Window("w", 0)
    for at, total in enumerate((100, 107, 107, 3), start=1):  # the last: its agent was restarted
        window.add(5 * at, {"edge-1": said(fault=total, stamp=total)}, [], SHOP)
    assert sums(window, "fault") == [0, 7, 0, 3]  # what it had counted before anybody looked is nobody's
    assert [r.causes for r in window.view("shop", 0).rounds] == [{}, {"stamp": 7}, {}, {"stamp": 3}]
    assert sums(window, "seconds") == [5, 5, 5, 5]


def test_a_version_that_an_edge_forgets_is_no_restart_of_it() -> None:
    """From the ninth release on each one lets the edges forget the oldest version, and with it its counters."""
    metrics = Metrics("edge-1")
    window = Window("w", 0)

    def ask(at: int) -> None:
        window.add(at, {"edge-1": read(generate_latest(metrics.registry).decode(), "edge-1", SHOP)}, [], SHOP)

    for version in ("A", "B"):
        metrics.requests("shop", "C", "forced", False, 40)
        metrics.flips("shop", version, "C", "retired", 40)
    ask(5)
    metrics.keep({"shop": frozenset({"B", "C"})})
    metrics.requests("shop", "C", "forced", False, 3)
    metrics.flips("shop", "B", "C", "retired", 3)
    ask(10)
    assert [(r.requests, r.forced, r.causes) for r in window.view("shop", 10).rounds][1] == (3, 3, {"retired": 3})


def test_what_a_silent_edge_counted_is_spread_and_whoever_saw_less_is_told() -> None:
    window = Window("w", 0)
    silent = [Silent(edge="edge-1", why="away")]
    window.add(5, {"edge-1": said(forced=0)}, [], SHOP)
    window.add(10, {}, silent, SHOP)
    window.add(15, {}, silent, SHOP)
    seen = window.key
    assert (sums(window, "silent"), window.view("shop", 15).silent) == ([0, 1, 1], silent)
    window.add(20, {"edge-1": said(forced=9)}, [], SHOP)
    assert sums(window, "forced") == [0, 3, 3, 3]
    assert len(window.view("shop", 20, seen).rounds) == 4  # what was given out has changed
    seen = window.key
    window.add(25, {"edge-1": said(forced=10)}, [], SHOP)
    assert [r.forced for r in window.view("shop", 25, seen).rounds] == [1]  # only what is new
    assert len(window.view("shop", 25, ("another", 5)).rounds) == 5


def test_it_holds_an_hour_and_no_more_whatever_comes() -> None:
    window = Window("w", 0)
    for n in range(ROUNDS + 50):
        services = SHOP if n < ROUNDS else SHOP | {"late"}
        window.add(n, {"edge-1": said(back=n), "edge-2": {}}, [], services)
        window.mark("shop", Mark(at=n, rollout=1, build="B", state="installing", text="x"))
    view = window.view("shop", 0)
    assert (len(view.rounds), view.next - view.first, len(view.marks)) == (ROUNDS, ROUNDS, MARKS)
    assert {r.back for r in view.rounds} == {1}
    assert [r.requests for r in window.view("late", 0).rounds] == [0] * ROUNDS
    window.add(9999, {}, [], frozenset())
    assert window.view("shop", 0).marks == []  # the service is gone


@pytest.mark.parametrize(
    ("metrics", "asked"),
    [
        ("10.0.0.7:9101", "http://10.0.0.7:9101/metrics"),
        ("[::1]:9101", "http://[::1]:9101/metrics"),
        ("0.0.0.0:9101", "http://edge-1.example:9101/metrics"),
        ("https://edge-1.example/secret?x=1", "https://edge-1.example/metrics"),
    ],
)
def test_only_metrics_are_asked_for(metrics: str, asked: str) -> None:
    assert scrape.address(EdgeInfo(name="e", metrics=metrics, url="http://edge-1.example/")) == asked


@pytest.mark.parametrize(
    "metrics", ["", "file:///etc/passwd", "http://u:p@host:1", "http://[", "host:port", "169.254.169.254:80", "ftp://x"]
)
def test_what_is_no_address_is_not_asked(metrics: str) -> None:
    with pytest.raises(scrape.NoAnswer):
        scrape.address(EdgeInfo(name="e", metrics=metrics))


class Server(BaseHTTPRequestHandler):
    """Misbehaves by what the server is told to do."""

    asked: list[str]
    release: threading.Event

    def do_GET(self) -> None:
        self.asked.append(self.path)
        how = self.server.how  # type: ignore[attr-defined]
        if how == "redirect":
            self.send_response(302)
            self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if how == "silent":
            self.release.wait(30)
        elif how == "endless":
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Server.asked, Server.release = [], threading.Event()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    Server.release.set()
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("how", "why"), [("redirect", "answers 302"), ("endless", "more than"), ("silent", "does not answer within")]
)
def test_an_edge_that_lies_is_not_followed_waited_for_or_swallowed(
    server: ThreadingHTTPServer, how: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "SECONDS", 5.0 if how != "silent" else 0.3)
    server.how = how  # type: ignore[attr-defined]

    async def ask() -> str:
        asker = scrape.Scraper()
        try:
            return await asker(EdgeInfo(name="e", metrics=f"127.0.0.1:{server.server_port}"))
        finally:
            await asker.close()

    with pytest.raises(scrape.NoAnswer, match=why):
        asyncio.run(ask())
    assert Server.asked == ["/metrics"]
