"""The page in a real browser, before a real barrier service on a real ZooKeeper with thin edges and hosts around it."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

from barrier import api, auth, service
from barrier.context import Api
from barrier.hub import Hub
from barrier.metrics import Metrics
from barrier.store import Store
from edge import status
from edge.metrics import Metrics as EdgeMetrics
from fleet.loop import Wake
from pinrail.local.ports import free_port
from tests.barrier.conftest import ACCESS, Fleet
from tests.barrier.fleet import Edge
from tests.barrier.http import TOKENS, Published, write_tokens

#: Milliseconds that the browser gives anything to appear; the machine may be busy.
PATIENCE = 20_000
LAPTOP = (1280, 800)
PHONE = (390, 844)


def chromium() -> str | None:
    """A browser that starts; Ubuntu has a file of that name that only tells about snap."""
    for path in filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser"))):
        if subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0:
            return path
    return None


@pytest.fixture(scope="module")
def playwright_() -> Iterator[Playwright]:
    """While it runs, its event loop counts as running in this thread: other modules' tests want one of their own."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright_: Playwright) -> Iterator[Browser]:
    if (program := chromium()) is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    arguments = ["--disable-dev-shm-usage", "--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    started = playwright_.chromium.launch(executable_path=program, args=arguments, timeout=60_000)
    yield started
    started.close()


class Counting:
    """A thin edge's metrics, in the words of the real one."""

    def __init__(self, name: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics = EdgeMetrics(name)
        self._server = status.serve(self.address, self.metrics.registry, lambda: None)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Site:
    """The service, and what stands around it. ``stop`` and ``start`` keep the port."""

    def __init__(self, fleet: Fleet, connect: Callable[..., object], tokens: Path) -> None:
        self.fleet = fleet
        self.counting: dict[str, Counting] = {}
        self._connect = connect
        self.tokens = tokens
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self._hub = Hub()
        self.zk = self._connect(self._hub)
        context = Api(Store(self.zk), auth.Tokens(self.tokens), Published(), Metrics(), self._hub)  # type: ignore[arg-type]
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", self._port))
        self._sock.listen()
        self._server = service._Server(api.create(context, sample_every=0.5), self._sock, Wake())
        self._server.start()

    def stop(self) -> None:
        self._hub.close()
        self._server.stop()
        self._sock.close()

    def edge(self, name: str, **fields: object) -> Edge:
        self.counting[name] = Counting(name)
        return self.fleet.edge(name, metrics=self.counting[name].address, **fields)

    def close(self) -> None:
        self.stop()
        for counting in self.counting.values():
            counting.close()


@pytest.fixture
def connect(connect: Callable[..., object]) -> Callable[..., object]:
    """Sessions of the barrier service, unless ``access`` says otherwise."""
    return functools.partial(connect, access=ACCESS["barrier"])


@pytest.fixture
def fleet(connect: Callable[..., object]) -> Iterator[Fleet]:
    made = Fleet(connect)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def site(fleet: Fleet, connect: Callable[..., object], tmp_path: Path) -> Iterator[Site]:
    tokens = tmp_path / "tokens.toml"
    write_tokens(tokens, TOKENS)
    made = Site(fleet, connect, tokens)
    yield made
    made.close()


@pytest.fixture
def small(site: Site) -> Site:
    """Two edges, three hosts, one controller, the service ``shop`` on which A runs."""
    site.fleet.configure()
    for name in ("edge-1", "edge-2"):
        site.edge(name)
    for name in ("host-1", "host-2", "host-3"):
        site.fleet.host(name)
    site.fleet.replica()
    site.fleet.deploy("A", reason="the first")
    return site


class Tab:
    """A tab of the browser, and everything that went wrong in it."""

    def __init__(self, site: Site, browser: Browser, size: tuple[int, int], **options: object) -> None:
        self.site = site
        width, height = size
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=1,
            **options,  # type: ignore[arg-type]
        )
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        #: Beginnings of lines that a test provokes; the browser itself writes one for every answer that is an error.
        self.forgiven: tuple[str, ...] = ()
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.requested: list[str] = []
        self.page.on("request", lambda r: self.requested.append(r.url))
        # A violation of the policy is an event; where nobody listens it is only a line on the console.
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )

    def sign_in(self, role: str, path: str = "/") -> Page:
        self.page.goto(self.site.url + path)
        self.page.get_by_label("Token", exact=True).fill(TOKENS[role])
        self.page.get_by_role("button", name="Look").click()
        self.page.get_by_text("live", exact=True).wait_for()
        return self.page

    def shows(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()


Open = Callable[..., Tab]


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Open]:
    """Opens tabs; in none of them may anything go wrong unseen."""
    made: list[Tab] = []

    def make(site: Site, size: tuple[int, int] = LAPTOP, **options: object) -> Tab:
        tab = Tab(site, browser, size, **options)
        made.append(tab)
        return tab

    yield make
    for tab in made:
        tab.context.close()
    assert [w for tab in made for w in tab.wrong if not w.startswith(tab.forgiven)] == []


#: What the browser writes of an answer that is an error, and of a connection that fails.
FAILED = ("Failed to load resource",)
