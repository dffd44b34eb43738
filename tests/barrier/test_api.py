"""The API over real HTTP, with a real ZooKeeper behind it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.barrier.conftest import Fleet
from tests.barrier.http import CONFIG, Http, write_tokens
from tests.conftest import ZooKeeperServer, eventually


def test_tokens_decide_who_may_do_what(http: Http, tokens: Path) -> None:
    assert http._client.get("/v1/services").status_code == 401
    wrong = http("GET", "/v1/services", token="guess")
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Bearer realm="pinrail"')
    assert http("GET", "/v1/services", role="read").json() == []
    refused = http("POST", "/v1/services/shop/rollouts", role="read", body={"build": "A"})
    assert (refused.status_code, "reader" in refused.text) == (403, True)
    assert http("PUT", "/v1/services/shop/config", role="deploy", body=CONFIG).status_code == 403
    assert http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG).status_code == 201
    assert http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG).status_code == 200
    write_tokens(tokens, {"read": "changed"})  # read anew without a restart
    assert http("GET", "/v1/services", token="changed").status_code == 200
    assert http("GET", "/v1/services", role="admin").status_code == 401
    tokens.write_text("nonsense")  # and a bad file changes nothing
    assert http("GET", "/v1/services", token="changed").status_code == 200
    assert http("GET", "/healthz").json() == {"status": "ok"}


def test_every_error_says_what_there_is_instead(http: Http) -> None:
    put = {"role": "admin", "method": "PUT", "path": "/v1/services/shop/config"}
    typo = http(**put, body={"health": {"flor": 50}})  # type: ignore[arg-type]
    assert (typo.status_code, typo.json()["detail"]) == (422, "health.flor: is not a known key")
    assert http("GET", "/v1/services/shop").status_code == 404
    http(**put, body=CONFIG)  # type: ignore[arg-type]
    unknown = http("GET", "/v1/services/shopp")
    assert (unknown.status_code, unknown.json()["services"]) == (404, ["shop"])
    assert http("GET", "/v1/services/NOT%20A%20NAME").status_code == 422
    assert http("GET", "/v2").status_code == 404
    method = http("PATCH", "/v1/services/shop/rollouts")
    assert (method.status_code, method.headers["allow"]) == (405, "GET, POST")
    assert method.json()["detail"] == "/v1/services/shop/rollouts has GET, POST, not PATCH"
    build = http("POST", "/v1/services/shop/rollouts", body={"build": "Z"})
    assert (build.status_code, build.json()["builds"]) == (404, list("ABCDE"))
    for body in ({}, {"build": "a/b"}, {"build": "A", "rampp": [1]}, {"build": "A", "ramp": [10, 1]}, [1]):
        assert http("POST", "/v1/services/shop/rollouts", body=body).status_code == 422
    for body, said in (
        ({"build": 7}, "build: must be text in quotes"),
        ({"build": "A", "ramp": "10"}, "ramp: must be a list, like [...]"),
        ({"build": "A", "ramp": ["10"]}, "ramp.0: must be a whole number"),
        ({"build": "A", "hold": "60"}, "hold: must be a number, or must be 'hand' or 'verdict'"),
        ({"build": "A", "expected_epoch": "1"}, "expected_epoch: must be a whole number"),
        ({"build": "A", "expected_epoch": True}, "expected_epoch: must be a whole number"),
        ({"build": "A", "hold": "soon"}, "hold: must be a number, or must be 'hand' or 'verdict'"),
        ([1], "body: must be an object, like {...}"),
    ):
        assert http("POST", "/v1/services/shop/rollouts", body=body).json()["detail"] == said
    half = http("POST", "/v1/services/shop/rollouts", raw=b'{"build":', headers={"content-type": "application/json"})
    assert (half.status_code, half.json()["detail"][:20]) == (400, "the body is not JSON")
    for raw in (b'{"build": "\xff"}', b'{"build": ' + 50_000 * b"[" + 50_000 * b"]" + b"}"):
        odd = http("POST", "/v1/services/shop/rollouts", raw=raw, headers={"content-type": "application/json"})
        assert (odd.status_code, odd.json()["detail"][:24]) == (400, "the body cannot be read:")
    surrogate = http(
        "POST",
        "/v1/services/shop/rollouts",
        raw=b'{"build": "A", "reason": "\\ud800"}',
        headers={"content-type": "application/json"},
    )
    assert surrogate.json()["detail"] == "reason: must be text, without halves of characters"
    form = http("POST", "/v1/services/shop/rollouts", raw=b'{"build": "A"}', headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert "Content-Type: application/json (it says text/plain)" in form.json()["detail"]
    assert http("POST", "/v1/services/nope/rollouts", body={"build": "A"}).status_code == 404
    assert http("GET", "/v1/services/shop/rollouts/9").json()["rollouts"] == []
    for last in ("0", "201", "all"):
        assert http("GET", f"/v1/services/shop/rollouts?last={last}").status_code == 422
    assert http("GET", "/v1/services/shop/barriers/soon").status_code == 404
    assert http("POST", "/v1/edges/edge-7/evict", body={"reason": "gone"}).status_code == 404
    assert http("POST", "/v1/edges/edge-7/evict", body={}).status_code == 422


def test_a_second_rollout_is_a_conflict_and_a_repeated_one_is_the_same(http: Http) -> None:
    http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG)
    path = "/v1/services/shop/rollouts"
    stale = http("POST", path, body={"build": "A", "expected_epoch": 7})
    assert (stale.status_code, stale.json()["epoch"]) == (409, 1)
    key = {"idempotency-key": "job-1"}
    first = http("POST", path, body={"build": "A", "expected_epoch": 1, "reason": "try"}, headers=key)
    assert (first.status_code, first.json()["number"], first.json()["by"]) == (201, 1, "deployer")
    assert first.headers["location"] == "/v1/services/shop/rollouts/1"
    again = http("POST", path, body={"build": "A"}, headers=key)
    assert (again.status_code, again.json()["number"]) == (200, 1)
    for changed in ({"build": "B"}, {"build": "A", "ramp": [10]}, {"build": "A", "hold": "hand"}):
        other = http("POST", path, body=changed, headers=key)
        assert (other.status_code, "use a new one" in other.text) == (409, True)
    theirs = http("POST", path, role="admin", body={"build": "A"}, headers=key)
    assert (theirs.status_code, theirs.json()["active"]["number"]) == (409, 1), "the key of one caller is not another's"
    assert http("POST", path, body={"build": "A"}, headers={"idempotency-key": ""}).status_code == 422
    second = http("POST", path, body={"build": "B"})
    assert (second.status_code, second.json()["active"]["build"]) == (409, "A")
    assert http("POST", f"{path}/1/resume").status_code == 409
    assert http("POST", f"{path}/1/explode").status_code == 422
    assert http("PUT", "/v1/services/shop/config", role="admin", body={"strategy": "inplace"}).status_code == 409
    assert http("DELETE", "/v1/services/shop", role="admin").status_code == 409


def test_a_whole_rollout_over_http(http: Http, fleet: Fleet) -> None:
    http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG)
    edge = fleet.edge("edge-1")
    for name in ("host-1", "host-2"):
        fleet.host(name)
    fleet.replica()
    for build in "AB":
        number = http("POST", "/v1/services/shop/rollouts", body={"build": build}).json()["number"]
        fleet.until(number, "switched", done=True)
    epoch = http("GET", "/v1/services/shop/plan").json()["epoch"]
    assert http("GET", f"/v1/services/shop/barriers/applied-{epoch}").json()["met"]
    assert http("GET", "/v1/services/shop/barriers/healthy-B").json()["met"]

    edge.drains = False
    http("POST", "/v1/services/shop/rollouts", body={"build": "C"})
    fleet.until(3, "withdrawing")
    drained = f"/v1/services/shop/barriers/drained-{epoch + 1}"
    late = http("GET", f"{drained}?wait=0.3").json()
    assert late["missing"] == [{"edge": "edge-1", "why": f"requests left on plans older than epoch {epoch + 1}"}]
    assert http("GET", "/v1/services/shop/rollouts/3").json()["missing"][0]["who"] == "edge-1"
    answers: list[tuple[float, bool]] = []

    def poll() -> None:
        began = time.monotonic()
        met = http("GET", f"{drained}?wait=30").json()["met"]
        answers.append((time.monotonic() - began, met))

    waiting = threading.Thread(target=poll)
    waiting.start()
    edge.drains = True
    edge.wake()
    waiting.join(20)
    assert answers
    assert answers[0][1]
    assert answers[0][0] < 10
    fleet.until(3, "switched", done=True)

    [shown] = http("GET", "/v1/edges").json()
    assert (shown["name"], shown["alive"], shown["rostered"]) == ("edge-1", True, True)
    assert shown["services"]["shop"]["behind"] is None
    hosts = http("GET", "/v1/hosts").json()
    assert [h["name"] for h in hosts] == ["host-1", "host-2"]
    assert {s["build"] for s in hosts[0]["services"]["shop"]["status"]["slots"]} == {"B", "C"}

    assert http("POST", "/v1/services/shop/rollouts/2/rollback").status_code == 409
    assert http("POST", "/v1/services/shop/rollouts/3/rollback", body={"reason": "slow"}).status_code == 202
    done = fleet.until(3, "rolled_back", done=True)
    assert "slow" in done.history[-2].text
    assert http("POST", "/v1/services/shop/rollouts/3/rollback").status_code == 409
    assert [r["number"] for r in http("GET", "/v1/services/shop/rollouts").json()] == [3, 2, 1]


def test_events_can_be_followed_and_taken_up_again(http: Http, small: Fleet) -> None:
    number = small.deploy("A").number
    path = f"/v1/services/shop/rollouts/{number}/events"

    def read(after: int | None) -> list[tuple[str, str]]:
        headers = {"last-event-id": str(after)} if after is not None else {}
        text = http("GET", path, headers=headers).text
        found = []
        for block in text.replace("\r\n", "\n").strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            json.loads(fields["data"])
            found.append((fields.get("id", ""), fields["event"]))
        return found

    whole = read(None)
    assert [e for _, e in whole] == ["installing", "offering", "switched", "switched", "done"]
    assert read(1) == whole[2:]


@pytest.mark.parametrize("kind", ["applied", "staged", "drained"])
def test_a_barrier_of_an_epoch_that_is_yet_to_come_is_not_met_where_there_is_no_edge(http: Http, kind: str) -> None:
    http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG)
    assert http("GET", f"/v1/services/shop/barriers/{kind}-1").json()["met"]
    future = http("GET", f"/v1/services/shop/barriers/{kind}-7").json()
    assert (future["met"], future["missing"]) == (False, [{"edge": "shop", "why": "its plan has epoch 1"}])


def test_a_job_can_drive_the_steps_itself(http: Http, small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")

    def plan(operation: str, version: str) -> httpx.Response:
        return http("POST", f"/v1/services/shop/plan/{operation}", body={"version": version})

    assert plan("withdraw", "B").status_code == 409  # the default
    barrier = plan("withdraw", "A").json()
    wait = http("GET", f"/v1/services/shop/barriers/{barrier['id']}?wait=10").json()
    assert (barrier["id"].startswith("drained-"), wait["met"]) == (True, True)
    assert plan("withdraw", "A").json() == wait, "it is so already: the same barrier, and no new epoch"
    never = plan("withdraw", "Z")
    assert (never.status_code, never.json()["detail"]) == (409, "Z is not served; what is: B")
    assert plan("default", "A").status_code == 409
    epoch = small.store.plan("shop").epoch
    unknown = plan("offer", "Z")
    assert (unknown.status_code, unknown.json()["registered"]) == (409, ["A", "B"])
    assert unknown.json()["detail"].startswith("no host has registered Z: start it on hosts, then offer it")
    assert small.store.plan("shop").epoch == epoch, "no edge was asked"
    barrier = plan("offer", "A").json()
    assert http("GET", f"/v1/services/shop/barriers/{barrier['id']}?wait=10").json()["met"]
    assert plan("default", "A").json()["id"].startswith("applied-")
    now = small.store.plan("shop")
    assert (now.default, now.updated_by) == ("A", "deployer")


def test_a_service_can_be_removed(http: Http, small: Fleet) -> None:
    small.deploy("A")
    for thread in small.threads:
        thread.stop()
    small.threads.clear()
    assert http("DELETE", "/v1/services/shop", role="admin").status_code == 204
    assert http("GET", "/v1/services").json() == []
    assert small.store.zk.children("/services", watch=False) == ()
    assert small.store.zk.children("/removed", watch=False) == ("shop",), "what tells agents to let go of it"
    assert http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG).status_code == 201
    assert small.store.zk.children("/removed", watch=False) == ()


def test_without_zookeeper_it_says_so(http: Http, zookeeper_server: ZooKeeperServer) -> None:
    assert http("GET", "/readyz").json() == {"status": "ok", "leader": "nobody"}
    zookeeper_server.stop()
    try:
        eventually("readyz to be red", lambda: http("GET", "/readyz").status_code == 503)
        assert http("GET", "/v1/services").status_code == 503
        assert http("GET", "/healthz").status_code == 200
    finally:
        zookeeper_server.start()
    eventually("readyz to be green", lambda: http("GET", "/readyz").status_code == 200, 30)


def test_metrics_and_the_description(http: Http) -> None:
    assert "pinrail_barrier_leading" in http("GET", "/metrics").text
    described = http("GET", "/openapi.json").json()
    assert "/v1/services/{service}/rollouts/{number}/{verb}" in described["paths"]


def test_refused_changes_are_counted_and_refused_looks_are_not(http: Http) -> None:
    def refused() -> dict[str, float]:
        lines = (line.rpartition(" ") for line in http("GET", "/metrics").text.splitlines())
        return {name[-5:-2]: float(n) for name, _, n in lines if name.startswith("pinrail_barrier_refused_total")}

    assert refused() == {"401": 0, "403": 0}
    http("GET", "/v1/services", token="guess")
    assert refused() == {"401": 0, "403": 0}
    http("POST", "/v1/services/shop/rollouts", token="guess", body={"build": "A"})
    http("PUT", "/v1/services/shop/config", role="deploy", body=CONFIG)
    http("POST", "/v1/services/shop/rollouts/1/abort", role="read")
    assert refused() == {"401": 1, "403": 2}
