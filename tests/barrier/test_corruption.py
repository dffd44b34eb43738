"""A znode that nobody of us wrote stops its own service, is said, and is never overwritten; all others go on."""

from __future__ import annotations

import json

import pytest

from barrier.store import services
from fleet import paths
from fleet.model import ServiceConfig, Turn
from tests.barrier.conftest import ANN, Fleet
from tests.barrier.http import CONFIG, Http
from tests.conftest import eventually

BROKEN = b'{"half": '
NODES = {
    "config": paths.config("web"),
    "plan": paths.plan("web"),
    "enabled": paths.enabled("web"),
    "canary": paths.enabled("web", "canary"),
    "rollout": paths.rollout("web", 1),
    "lock": paths.active_rollout("web"),
    "queue": paths.waiting_rollout("web"),
    "turn": paths.turn("web", "host-9"),
}


@pytest.fixture
def two(fleet: Fleet) -> Fleet:
    """``shop`` runs A; ``web`` has a rollout that waits for hosts, of which there are none."""
    fleet.configure()
    match = [{"host": "web.example"}]
    services.configure(fleet.store, "web", ServiceConfig.model_validate({"match": match, "when_busy": "queue"}), ANN)
    fleet.edge("edge-1")
    fleet.host("host-1")
    fleet.replica()
    fleet.deploy("A")
    return fleet


@pytest.mark.parametrize("kind", NODES)
def test_it_stops_its_service_alone_and_is_left_as_it_is(two: Fleet, http: Http, kind: str) -> None:
    zk, path = two.store.zk, NODES[kind]
    for build in "AB":
        begun = http("POST", "/v1/services/web/rollouts", body={"build": build})
        assert begun.status_code == 201, begun.text
    eventually("web to install", lambda: two.store.rollout("web", 1).state == "installing")  # type: ignore[union-attr]
    if kind == "canary":
        zk.create(path, BROKEN)
    elif kind == "turn":
        zk.create(path, Turn(serial=1).encode())
        zk.set(path, BROKEN, 0)
    else:
        node = zk.get(path, watch=False)
        assert node is not None
        zk.set(path, BROKEN, node.version)
    broken = zk.get(path, watch=False)

    two.deploy("B")  # of the other service
    for method, asked, body in (
        ("GET", "/v1/services/web", None),
        ("POST", "/v1/services/web/rollouts", {"build": "C"}),
        ("POST", "/v1/services/web/plan/withdraw", {"version": "A"}),
        ("POST", "/v1/services/web/previews", {"build": "A"}),
    ):
        said = http(method, asked, body=body)
        assert (said.status_code, f"{path} cannot be read" in said.json()["detail"]) == (503, True), said.text
    lines = {s["service"]: s for s in http("GET", "/v1/services").json()}
    assert (lines["shop"]["default"], lines["shop"]["trouble"]) == ("B", None)
    if kind in ("plan", "lock"):
        assert f"{path} cannot be read" in lines["web"]["trouble"]
    assert [set(e["services"]) for e in http("GET", "/v1/edges").json()] == [{"shop"}]
    assert [set(h["services"]) for h in http("GET", "/v1/hosts").json()] == [{"shop"}]
    if kind == "config":
        assert http("PUT", "/v1/services/web/config", role="admin", body=CONFIG).status_code == 503
        assert http("DELETE", "/v1/services/web", role="admin").status_code == 503
    assert zk.get(path, watch=False) == broken
    assert http("GET", "/readyz").status_code == 200


def test_an_ack_or_a_hosts_word_that_cannot_be_read_is_that_nodes_error(two: Fleet, http: Http) -> None:
    zk = two.store.zk
    zk.create(paths.ack("shop", "edge-7"), BROKEN)
    zk.create(paths.rostered("edge-7"), json.dumps({"name": "edge-7"}).encode())
    zk.create(paths.host("shop", "host-7"), BROKEN)
    number = two.begin("B").number
    eventually("it to be named", lambda: two.get(number).stalled)
    missing = {m["who"]: m["why"] for m in http("GET", f"/v1/services/shop/rollouts/{number}").json()["missing"]}
    assert "cannot be read" in missing["edge-7"]
    hosts = {h["name"]: h["services"]["shop"]["status"] for h in http("GET", "/v1/hosts").json()}
    assert "cannot be read" in hosts["host-7"]["error"]
