"""An Idempotency-Key makes one change of many calls; an expected epoch makes none of a late one."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from barrier.pruning import Pruner
from barrier.store import audit
from fleet import paths
from fleet.model import EdgeInfo
from tests.barrier.conftest import ANN, Fleet
from tests.barrier.http import CONFIG, Http

SHOP = "/v1/services/shop"
KEY = {"idempotency-key": "job-17"}


def actions(http: Http) -> list[str]:
    return [e["action"] for e in reversed(http("GET", "/v1/audit").json())]


def test_every_changing_call_is_done_once(http: Http, small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    for name in ("edge-8", "edge-9"):
        small.store.zk.create(paths.rostered(name), EdgeInfo(name=name).encode())
    calls: list[tuple[str, str, object]] = [
        ("POST", "/v1/edges/edge-8/evict", {"reason": "sold"}),
        ("POST", "/v1/edges/edge-9/evict", {"reason": "sold"}),
        ("POST", f"{SHOP}/plan/withdraw", {"version": "A"}),
        ("POST", f"{SHOP}/plan/offer", {"version": "A"}),
        ("POST", f"{SHOP}/plan/stage", {"version": "A", "reason": "again"}),
        ("PUT", f"{SHOP}/config", CONFIG | {"keep": 9}),
        ("DELETE", "/v1/services/gone", None),
    ]
    http("PUT", "/v1/services/gone/config", role="admin", body={"match": [{"host": "gone.example"}]})
    before = actions(http)
    for n, (method, path, body) in enumerate(calls):
        key = {"idempotency-key": f"job-{n}"}
        first = http(method, path, role="admin", body=body, headers=key)
        assert first.status_code < 300, first.text
        assert "idempotent-replayed" not in first.headers
        again = http(method, path, role="admin", body=body, headers=key)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    assert actions(http) == [*before, "evict", "evict", "withdraw", "offer", "stage", "configure", "remove"]


def test_a_request_to_a_rollout_is_left_once(http: Http, small: Fleet) -> None:
    small.deploy("A")
    number = small.begin("B", ramp=[10], hold=1000).number
    small.until(number, "ramping")
    path = f"{SHOP}/rollouts/{number}/pause"
    first = http("POST", path, body={"reason": "lunch"}, headers=KEY)
    small.until(number, "paused")
    assert http("POST", path, body={"reason": "lunch"}).status_code == 409, "it is paused"
    again = http("POST", path, body={"reason": "lunch"}, headers=KEY)
    assert (again.status_code, again.json()) == (202, first.json())
    other = http("POST", f"{SHOP}/rollouts/{number}/abort", headers=KEY)
    assert (other.status_code, "used for another call" in other.text) == (409, True)
    assert http("POST", path, body={"reason": "tea"}, headers=KEY).status_code == 409
    mine = http("POST", f"{SHOP}/rollouts/{number}/resume", role="admin", headers=KEY)
    assert mine.status_code == 202, "the key of one caller is not another's"


def test_of_many_at_once_one_is_done(http: Http, small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(http("POST", f"{SHOP}/plan/withdraw", body={"version": "A"}, headers=KEY))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert actions(http).count("withdraw") == 1
    assert {a.status_code for a in answers} <= {200, 409}
    assert all("is not known (yet)" in a.text for a in answers if a.status_code == 409)
    assert http("POST", f"{SHOP}/plan/withdraw", body={"version": "A"}, headers=KEY).status_code == 200


def test_what_failed_may_be_tried_again_with_the_same_key(http: Http, small: Fleet) -> None:
    small.deploy("A")
    for _ in range(2):
        assert http("POST", f"{SHOP}/plan/stage", body={"version": "B"}, headers=KEY).status_code == 409
    small.deploy("B")
    assert http("POST", f"{SHOP}/plan/stage", body={"version": "A"}, headers=KEY).status_code == 200
    assert http("POST", f"{SHOP}/plan/stage", body={"version": "A"}, headers={"idempotency-key": ""}).status_code == 422


def test_keys_go_with_their_entries(http: Http, fleet: Fleet) -> None:
    fleet.configure()
    zk, now = fleet.store.zk, [0.0]
    zk.create(paths.FENCE, b"")
    for n in range(4):
        config: dict[str, Any] = CONFIG | {"keep": n + 1}
        http("PUT", f"{SHOP}/config", role="admin", body=config, headers={"idempotency-key": str(n)})
    assert len(zk.children(paths.KEYS, watch=False)) == 4
    audit.commit(zk, [], ANN, "configure", "one more")
    Pruner(zk, monotonic=lambda: now[0], entries=2).prune(fence=0)
    assert len(audit.names(zk)) == 2
    assert len(zk.children(paths.KEYS, watch=False)) == 1


@pytest.mark.parametrize("operation", ["withdraw", "offer", "stage", "default"])
def test_an_expected_epoch_that_is_over_changes_nothing(http: Http, small: Fleet, operation: str) -> None:
    small.deploy("A")
    small.deploy("B")
    plan = small.store.plan("shop")
    body = {"version": "A", "expected_epoch": plan.epoch - 1}
    late = http("POST", f"{SHOP}/plan/{operation}", body=body)
    assert (late.status_code, late.json()["epoch"]) == (409, plan.epoch)
    put = http("PUT", f"{SHOP}/config?expected_epoch={plan.epoch - 1}", role="admin", body=CONFIG | {"keep": 9})
    assert (put.status_code, put.json()["epoch"]) == (409, plan.epoch)
    assert small.store.plan("shop") == plan
    fine = http("PUT", f"{SHOP}/config?expected_epoch={plan.epoch}", role="admin", body=CONFIG | {"keep": 9})
    assert (fine.status_code, fine.json()["keep"]) == (200, 9)
    assert http("PUT", f"{SHOP}/config?expected_epoch=0", role="admin", body=CONFIG).status_code == 409
    new = CONFIG | {"match": [{"host": "new.example"}]}
    assert http("PUT", "/v1/services/new/config?expected_epoch=0", role="admin", body=new).status_code == 201
    assert http("POST", f"{SHOP}/plan/{operation}", body=body | {"expected_epoch": plan.epoch}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"ports": [0, 8001]}, "ports.0"),
        ({"ports": [8000, 65536]}, "ports.1"),
        ({"ports": [8000, 8000]}, "ports"),
        ({"ports": [8000]}, "ports"),
        ({"strategy": "inplace", "ports": []}, "ports"),
        ({"strategy": "blue"}, "strategy"),
        ({"pool": {"processes": 0}}, "pool.processes"),
        ({"pool": {"runner": "cron"}}, "pool.runner"),
        ({"runner": "podman"}, "runner"),
        ({"pool": {"processes": 257}}, "pool.processes"),
        ({"pool": {"command": []}}, "pool.command"),
        ({"pool": {"command": ["run", "a\0b"]}}, "pool.command.1"),
        ({"pool": {"listen": "carrier pigeon"}}, "pool.listen"),
        ({"pool": {"environment": {"A B": "c"}}}, "pool.environment.A B"),
        ({"health": {"path": "http://elsewhere/healthz"}}, "health.path"),
        ({"health": {"warm": ["http://elsewhere/"]}}, "health.warm.0"),
        ({"body_bytes": -1}, "body_bytes"),
        ({"match": [{"path": "no-slash"}]}, "match.0.path"),
        ({"immutable": ["/"]}, "immutable.0"),
        ({"colour": 1}, "colour"),
        ({"when_stalled": "panic"}, "when_stalled"),
        ({"give_up_seconds": 0}, "give_up_seconds"),
        ({"give_up_seconds": True}, "give_up_seconds"),
        ({"keep": "7"}, "keep"),
        ({"waves": {"percent": "15"}}, "waves.percent"),
        ({"ports": ["8000", 8001]}, "ports.0"),
    ],
)
def test_an_impossible_configuration_is_refused_by_its_key(http: Http, fields: dict[str, object], where: str) -> None:
    refused = http("PUT", f"{SHOP}/config", role="admin", body=fields)
    assert (refused.status_code, [e["where"] for e in refused.json()["errors"]]) == (422, [where]), refused.text
    assert refused.json()["detail"].startswith(f"{where}: ")
    assert http("GET", "/v1/services").json() == []


def test_a_parameter_that_nobody_knows_is_refused(http: Http) -> None:
    typo = http("PUT", f"{SHOP}/config?raeson=x", role="admin", body=CONFIG)
    assert (typo.status_code, typo.json()["detail"]) == (
        422,
        "raeson: is not a known parameter; there is expected_epoch, reason",
    )
    assert http("GET", "/v1/services?last=3").json()["detail"].endswith("there is none here")
