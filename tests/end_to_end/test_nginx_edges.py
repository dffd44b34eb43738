"""A release and its rollback through a real fleet whose edges are nginx, under load: no client notices."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pinrail.demo import check
from pinrail.local.state import FleetState
from tests.end_to_end import course
from tests.local.conftest import run

pytestmark = pytest.mark.timeout(400)
BUILDS = [("A", "ngx-a"), ("B", "ngx-b")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetState]:
    yield from course.fleet(tmp_path_factory.mktemp("nginx") / "fleet", "--engine", "nginx")


def test_releases_and_a_rollback_through_nginx_edges_go_unnoticed(fleet: FleetState) -> None:
    way = course.releases(fleet, BUILDS)
    promises = check.promises(way.judged, way.releases, way.different)
    assert {p.name: p.broken for p in promises if p.broken} == {}, [r for r in way.records if check.failed(r)]
    assert [r.withdrawn for r in way.releases] == [(), (way.base,), ()]


def test_the_edges_say_what_they_are(fleet: FleetState) -> None:
    shown = json.loads(run("edges", "--json", "--dir", fleet.directory).stdout)
    assert {e["engine"] for e in shown} == {"nginx"}


def test_what_the_edges_did_for_a_rollout_carries_its_number(fleet: FleetState) -> None:
    lines = course.logs(fleet, *(e.id for e in fleet.edges), "--service", "ngapp")
    found = {(line["text"], line["pairs"].get("rollout") is not None) for line in lines}
    assert {("loaded", True), ("committed", True), ("acknowledged", True)} <= found
    rollouts = {line["pairs"]["rollout"] for line in lines if "rollout" in line["pairs"]}
    assert len(rollouts) == 3, "the first deploy and two releases; a rollback is of the release that it takes back"
