"""A whole small fleet, as its user sees it: up, status, stop and start, what is killed comes back, down."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pinrail.local import processes
from tests.conftest import eventually
from tests.local.conftest import left_of, run

pytestmark = pytest.mark.timeout(240)


class Fleet:
    """One edge, two hosts, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # As on many a laptop: a proxy that nothing on loopback may go through.
        proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
        self.up = run("up", "--edges", 1, "--hosts", 2, "--dir", directory, seconds=200, **proxy)
        self.url = self.up.stdout.strip().rpartition("\n")[2]

    def __call__(self, *words: object) -> str:
        done = run(*words, "--dir", self.directory)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self("status", "--json"))

    def get(self) -> httpx.Response:
        return httpx.get(self.url, headers={"Accept": "text/html"}, timeout=10, trust_env=False)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet") / "it"
    fleet = Fleet(directory)
    yield fleet
    down = run("down", "--dir", directory)
    assert down.returncode == 0, down.stderr
    assert left_of(directory) == []
    assert not directory.exists()


def test_the_last_line_of_up_is_a_url_that_answers(fleet: Fleet) -> None:
    assert fleet.up.returncode == 0, fleet.up.stderr
    answer = fleet.get()
    assert answer.status_code == 200
    shown = re.search(r'data-build="([^"]+)"', answer.text)
    assert shown is not None
    assert answer.headers["x-deployment-id"] == shown.group(1)


def test_it_says_of_each_part_when_it_was_ready(fleet: Fleet) -> None:
    for part in ("zookeeper", "s3", "barrier-1", "barrier-2", "edge-1", "edge-1-server", "host-1", "host-2-server"):
        assert re.search(rf"^ +{part} +ready in \d+\.\d s", fleet.up.stderr, re.M), fleet.up.stderr


def test_a_second_up_says_that_it_runs(fleet: Fleet) -> None:
    again = run("up", "--dir", fleet.directory)
    assert again.returncode == 0
    assert again.stdout.strip() == fleet.url
    assert "already running" in again.stderr


def test_status_has_what_scripts_need(fleet: Fleet) -> None:
    status = fleet.status()
    pids = [status["zookeeper"]["pid"], *(b["pid"] for b in status["barrier"])]
    for node in (*status["edges"], *status["hosts"]):
        pids += [node["pids"]["agent"], node["pids"]["server"]]
    assert all(processes.look(p) for p in pids), status
    assert len(set(pids)) == len(pids)
    assert {"id", "engine", "url", "admin", "metrics", "pids"} <= status["edges"][0].keys()
    assert {"id", "url", "metrics", "pids"} <= status["hosts"][0].keys()
    assert {"read", "deploy", "admin"} == status["token"].keys()
    assert re.fullmatch(r"127\.0\.0\.1:\d+/\w+", status["zookeeper"]["connect"])
    assert status["s3"].startswith("http://127.0.0.1:")
    addresses = {h["address"] for h in status["hosts"]}
    assert len(addresses) == 2
    assert "127.0.0.1" not in addresses
    served = {s["service"]: s for s in status["services"]}["ngapp"]
    assert served["plan"]["default"] == fleet.get().headers["x-deployment-id"]


def test_prometheus_scrapes_every_part_and_minds_the_rules(fleet: Fleet) -> None:
    url = fleet.status()["prometheus"]
    if url is None:
        pytest.skip("prometheus is not installed")

    def data(path: str) -> Any:
        return httpx.get(f"{url}/api/v1/{path}", timeout=10, trust_env=False).json()["data"]

    def up() -> set[tuple[str, int]]:
        found = [t["labels"]["job"] for t in data("targets")["activeTargets"] if t["health"] == "up"]
        return {(job, found.count(job)) for job in found}

    eventually("all are up", lambda: up() == {("edge", 1), ("host", 2), ("barrier", 2)}, 30)
    eventually("requests can be asked for", lambda: data("query?query=pinrail_edge_requests_total")["result"], 30)

    def rules() -> list[dict[str, str]]:
        return [r for g in data("rules")["groups"] for r in g["rules"]]

    assert "PinrailEdgeBehind" in {r["name"] for r in rules()}
    eventually("each was evaluated", lambda: {r["health"] for r in rules()} == {"ok"}, 30)


def test_status_is_for_people_too(fleet: Fleet) -> None:
    shown = fleet("status")
    for word in ("edge-1", "host-1", "host-2", "barrier-1", "zookeeper", "ngapp", fleet.url.rstrip("/")):
        assert word in shown
    assert not any(t in shown for t in fleet.status()["token"].values())


def test_three_builds_are_there_to_be_deployed(fleet: Fleet) -> None:
    builds = fleet.status()["builds"]
    assert len(builds) == 3
    assert fleet.get().headers["x-deployment-id"] == builds[0]


def test_a_killed_part_comes_back(fleet: Fleet) -> None:
    before = fleet.status()["hosts"][0]["pids"]["agent"]
    os.kill(before, signal.SIGKILL)
    eventually(
        "the agent is another process", lambda: fleet.status()["hosts"][0]["pids"]["agent"] not in (None, before)
    )


def test_a_part_that_is_stopped_stays_away_until_it_is_started(fleet: Fleet) -> None:
    assert "host-1 is stopped" in fleet("stop", "host-1")
    assert fleet.status()["hosts"][0]["pids"]["agent"] is None
    assert fleet.get().status_code == 200  # an agent's absence is nobody's death
    metrics = fleet.status()["hosts"][0]["metrics"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(metrics, trust_env=False)
    fleet("stop", "host-1")  # it stays so
    assert "host-1 is ready" in fleet("start", "host-1")
    assert httpx.get(metrics, trust_env=False).status_code == 200


def test_an_unknown_part_is_answered_with_the_known_ones(fleet: Fleet) -> None:
    for verb in ("stop", "start"):
        done = run(verb, "edge-9", "--dir", fleet.directory)
        assert done.returncode == 2
        assert "no part 'edge-9'" in done.stderr
        assert "edge-1-server" in done.stderr


def test_two_fleets_do_not_disturb_each_other_even_when_one_loses_its_supervisor(fleet: Fleet, tmp_path: Path) -> None:
    directory = tmp_path / "other"
    try:
        up = run("up", "--bare", "--edges", 1, "--hosts", 1, "--dir", directory)
        assert up.returncode == 0, up.stderr
        other = json.loads(run("status", "--json", "--dir", directory).stdout)
        mine = fleet.status()
        assert other["edges"][0]["url"] != mine["edges"][0]["url"]
        assert {h["address"] for h in other["hosts"]}.isdisjoint(h["address"] for h in mine["hosts"])
        os.kill(other["supervisor"]["pid"], signal.SIGKILL)
        eventually("supervisord is dead", lambda: processes.look(other["supervisor"]["pid"]) is None)
        assert left_of(directory)
        assert "no longer runs" in run("status", "--dir", directory).stderr
    finally:
        down = run("down", "--dir", directory)
    assert down.returncode == 0, down.stderr
    assert left_of(directory) == []
    assert not directory.exists()
    assert fleet.get().status_code == 200
