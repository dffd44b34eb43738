"""The sample service, built, started as a host starts it, and asked over its socket."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from pinrail.local.ports import free_port
from pipeline import archive
from tests.conftest import eventually

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "ngapp"


def make(edition: str, directory: Path, *options: str) -> Path:
    argv = [sys.executable, str(FOLDER / "make_build.py"), edition, str(directory), *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return directory


class Service:
    """One process of the pool, on a unix socket."""

    def __init__(self, tree: Path, build: str, directory: Path, **environment: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.socket = directory / "s"
        told = {"SOCKET": str(self.socket), "PINRAIL_VERSION": build, "PINRAIL_HOST": "host-1", "PINRAIL_SLOT": "1"}
        kept = {k: v for k, v in os.environ.items() if k not in ("PORT", "SOCKET")}
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "serve.py"],
                cwd=tree,
                env={**kept, **told, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        transport = httpx.HTTPTransport(uds=str(self.socket))
        self.http = httpx.Client(transport=transport, base_url="http://ngapp", timeout=10)
        eventually(f"the service to answer; see {directory / 'log'}", self._answers)

    def _answers(self) -> bool:
        """A connection is taken. (httpx leaks a socket where none is.)"""
        assert self.process.poll() is None
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(str(self.socket)) == 0

    def page(self) -> Page:
        return Page(self.http.get("/").text)

    def stop(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class Page(HTMLParser):
    """What a browser would take from the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.build = ""
        self.scripts: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "unclosed elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        if tag == "html":
            self.build = named["data-build"] or ""
        if tag == "script":
            self.scripts.append(named["src"] or "")
        if "id" in named:
            self.ids.add(named["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


Start = Callable[..., Service]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    started: list[Service] = []

    def run(tree: Path, build: str, **environment: str) -> Service:
        started.append(Service(tree, build, tmp_path_factory.mktemp("run"), **environment))
        return started[-1]

    yield run
    for service in started:
        service.stop()


@pytest.fixture(scope="module")
def one(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Service:
    return start(make("1", tmp_path_factory.mktemp("build") / "one"), "b-1")


@pytest.fixture(scope="module")
def two(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Service:
    return start(make("2", tmp_path_factory.mktemp("build") / "two"), "b-2")


def test_the_page_names_its_build_and_loads_its_own_script(one: Service) -> None:
    answer = one.http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=0, s-maxage=1"
    page = Page(answer.text)
    assert page.build == "b-1"
    assert re.fullmatch(r"/assets/app\.[0-9a-f]{16}\.js\?dpl=b-1", page.scripts[0])
    assert "__" not in answer.text
    script = one.http.get(page.scripts[0])
    assert script.status_code == 200
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert 'BUILD = "b-1"' in script.text
    asked_for = set(re.findall(r'\$\("([a-z]+)"\)', script.text))
    assert asked_for <= page.ids, "the script looks for what is not on the page"


def test_an_asset_exists_in_its_own_build_only(one: Service, two: Service) -> None:
    mine, other = one.page().scripts[0], two.page().scripts[0]
    assert mine.partition("?")[0] != other.partition("?")[0]
    missing = one.http.get(other)
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store")
    assert one.http.get("/").text != two.http.get("/").text


def test_one_tree_under_two_names_has_two_scripts(one: Service, start: Start, tmp_path: Path) -> None:
    again = start(make("1", tmp_path / "t"), "b-1")
    assert again.page().scripts == one.page().scripts
    renamed = start(tmp_path / "t", "b-1-again")
    assert renamed.page().build == "b-1-again"
    assert renamed.page().scripts[0].partition("?")[0] != one.page().scripts[0].partition("?")[0]


@pytest.mark.parametrize("which", ["page", "script"])
def test_conditional_requests_get_304(one: Service, which: str) -> None:
    path = "/" if which == "page" else one.page().scripts[0]
    whole = one.http.get(path)
    tag = whole.headers["etag"]
    for sent in (tag, f'"x", W/{tag}', "*"):
        answer = one.http.get(path, headers={"if-none-match": sent})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == whole.headers["cache-control"]
    assert one.http.get(path, headers={"if-none-match": '"x"'}).content == whole.content
    head = one.http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole.content)))


def test_the_feed_says_who_answered(one: Service) -> None:
    answer = one.http.get("/api/feed")
    assert answer.json() == {"build": "b-1", "host": "host-1", "slot": "1", "pid": one.process.pid}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_was_saved_is_measured(one: Service, size: int) -> None:
    body = os.urandom(size)
    answer = one.http.post("/api/save", content=body)
    assert answer.json() == {"build": "b-1", "bytes": size, "sha256": hashlib.sha256(body).hexdigest()}


def test_slow_is_as_slow_as_asked(one: Service) -> None:
    began = time.monotonic()
    assert one.http.get("/api/slow?ms=250").json()["build"] == "b-1"
    assert time.monotonic() - began >= 0.25
    for bad in ("x", "-1", "60001", "1e3", "9999999"):
        assert one.http.get(f"/api/slow?ms={bad}").status_code == 400
        assert one.http.get(f"/api/stream?ms={bad}").status_code == 400


def test_a_stream_comes_in_pieces(one: Service) -> None:
    came = []
    with one.http.stream("GET", "/api/stream?ms=350") as answer:
        for piece in answer.iter_raw():
            came.append((time.monotonic(), piece))
    lines = [json.loads(line) for line in b"".join(p for _, p in came).splitlines()]
    assert [line["chunk"] for line in lines] == list(range(len(lines)))
    assert 2 <= len(lines) <= 4
    assert {line["build"] for line in lines} == {"b-1"}
    assert came[-1][0] - came[0][0] >= 0.1
    assert one.http.get("/api/stream").text.count("\n") == 1


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404, 418, 500, 503, 599])
def test_fail_fails_as_asked(one: Service, status: int) -> None:
    answer = one.http.get(f"/fail/{status}")
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")


@pytest.mark.parametrize("bad", ["", "x", "100", "600", "2000", "0200", "-200"])
def test_a_status_that_is_none_is_not_found(one: Service, bad: str) -> None:
    assert one.http.get(f"/fail/{bad}").status_code == 404


def test_what_is_not_there_and_what_cannot_be_done(one: Service) -> None:
    assert one.http.get("/nothing").status_code == 404
    wrong = one.http.post("/")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert one.http.get("/api/save").headers["allow"] == "POST"


def test_a_build_that_never_gets_ready(one: Service, start: Start, tmp_path: Path) -> None:
    good = one.http.get("/healthz")
    assert (good.status_code, good.json()["build"]) == (200, "b-1")
    never = start(make("3", tmp_path / "never", "--never-ready"), "b-3")
    assert (never.http.get("/healthz").status_code, never.http.get("/healthz").json()["build"]) == (503, "b-3")
    told = start(make("3", tmp_path / "told"), "b-3", NGAPP_NEVER_READY="1")
    assert told.http.get("/healthz").status_code == 503


def test_nginxs_user_may_connect(one: Service) -> None:
    assert stat.S_IMODE(one.socket.stat().st_mode) & 0o666 == 0o666


def test_term_finishes_what_is_under_way(start: Start, tmp_path: Path) -> None:
    service = start(make("4", tmp_path / "t"), "b-4")
    got: list[int] = []
    under_way = threading.Event()

    def ask() -> None:
        with service.http.stream("GET", "/api/stream?ms=700") as answer:
            for _ in answer.iter_raw():
                under_way.set()
            got.append(answer.status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert under_way.wait(10)
    service.process.send_signal(signal.SIGTERM)
    asking.join(10)
    assert got == [200]
    assert service.process.wait(10) in (0, -signal.SIGTERM)
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        "app.js",
        "edition.json",
        "ngapp.py",
        "page.html",
        "serve.py",
    ]


def test_it_serves_on_a_port_too_and_says_what_it_needs(tmp_path: Path) -> None:
    tree = make("5", tmp_path / "t")
    kept = {k: v for k, v in os.environ.items() if k not in ("PORT", "SOCKET")}
    lost = subprocess.run([sys.executable, "serve.py"], cwd=tree, env=kept, capture_output=True, text=True, timeout=20)
    assert (lost.returncode, lost.stderr) == (1, "ngapp: set SOCKET to a path, or PORT to a number\n")
    port = free_port()
    process = subprocess.Popen([sys.executable, "serve.py"], cwd=tree, env={**kept, "PORT": str(port)})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            def answers() -> bool:
                try:
                    return "build" in http.get("/api/feed").json()
                except httpx.TransportError:
                    return False

            eventually("the service on its port", answers)
    finally:
        process.terminate()
        process.wait(10)


def test_an_edition_is_always_the_same_tree(tmp_path: Path) -> None:
    def packed(edition: str, name: str) -> archive.Packed:
        return archive.pack(archive.survey(make(edition, tmp_path / name)), tmp_path / f"{name}.zst")

    assert packed("7", "a") == packed("7", "b")
    assert packed("8", "c") != packed("7", "d")


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    argv = [sys.executable, str(FOLDER / "make_build.py"), "1", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (1, f"make_build: {tmp_path} is not empty\n")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
