"""Previews: tokens for one version, through the API; they end by themselves, with their version, or by a word."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from barrier import plans
from barrier.lifetimes import Lifetimes
from barrier.plans import PREVIEWS_AT_MOST, PlanError
from fleet import paths
from fleet.model import Enabled, EnabledBuild, Plan, Preview
from tests.barrier.conftest import Fleet
from tests.barrier.http import DIGEST, Http
from tests.conftest import eventually

PATH = "/v1/services/shop/previews"


def create(http: Http, build: str, **fields: object) -> dict[str, Any]:
    answer = http("POST", PATH, body={"build": build} | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_preview_from_its_making_to_its_end(http: Http, small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    first, second = create(http, "A", seconds=3600, reason="for the design"), create(http, "A")
    assert first["token"] != second["token"]
    assert len(first["token"]) > 30
    assert http("GET", f"/v1/services/shop/barriers/applied-{second['epoch']}?wait=10").json()["met"]
    assert [p.token for p in small.store.plan("shop").previews] == [first["token"], second["token"]]
    entry = http("GET", "/v1/audit").json()[1]
    assert (entry["action"], entry["version"], entry["why"]) == ("preview", "A", "for the design")
    assert first["token"] not in str(entry), "what opens something is in no audit"
    assert [p["id"] for p in http("GET", PATH, role="read").json()] == [first["id"], second["id"]]

    assert http("DELETE", f"{PATH}/{first['id']}", role="read").status_code == 403
    assert http("DELETE", f"{PATH}/{first['id']}?reason=done").status_code == 204
    assert http("DELETE", f"{PATH}/{first['id']}").status_code == 404
    assert [p["id"] for p in http("GET", PATH).json()] == [second["id"]]
    small.deploy("C")  # withdraws A, and with it what shows A
    assert http("GET", PATH).json() == []


def test_the_leader_ends_what_has_lived_for_its_time(http: Http, small: Fleet) -> None:
    small.deploy("A")
    create(http, "A", seconds=3600)
    short = create(http, "A", seconds=1)
    eventually("the short one to be gone", lambda: len(small.store.plan("shop").previews) == 1)
    plan = small.store.plan("shop")
    assert (plan.epoch, plan.updated_by) == (short["epoch"] + 1, "barrier-1")


def test_the_new_version_can_be_looked_at_before_anybody_gets_it(http: Http, small: Fleet) -> None:
    small.deploy("A")
    number = small.begin("B", ramp=[1], hold=1000).number
    small.until(number, "ramping")
    made = create(http, "B")
    assert small.get(number).state == "ramping"
    small.ask(number, "resume")
    small.until(number, "switched", done=True)
    plan = small.store.plan("shop")
    assert (plan.default, [p.token for p in plan.previews]) == ("B", [made["token"]])
    small.ask(number, "rollback")
    small.until(number, "rolled_back", done=True)


def test_a_canary_can_be_looked_at_though_it_is_not_served(http: Http, small: Fleet) -> None:
    small.deploy("A")
    enabled = Enabled(serial=1, builds=(EnabledBuild(build="P", digest=DIGEST),))
    small.store.zk.create(paths.enabled("shop", "canary"), enabled.encode())
    create(http, "P")
    small.deploy("B")
    assert [p["version"] for p in http("GET", PATH).json()] == ["P"], "a rollout of others does not end it"


def test_what_nobody_runs_or_says_is_refused(http: Http, small: Fleet) -> None:
    small.deploy("A")

    def ask(**body: object) -> httpx.Response:
        return http("POST", PATH, body=body)

    unknown = ask(build="Z")
    assert (unknown.status_code, unknown.json()["versions"]) == (409, ["A"])
    for body in ({}, {"build": "A", "seconds": 0}, {"build": "A", "seconds": 10**9}, {"build": "A", "token": "mine"}):
        assert ask(**body).status_code == 422  # type: ignore[arg-type]
    assert http("POST", PATH, role="read", body={"build": "A"}).status_code == 403
    assert http("POST", "/v1/services/none/previews", body={"build": "A"}).status_code == 404


def test_there_is_room_for_so_many() -> None:
    plan = Plan(epoch=1, default="A", serving=("A",))
    for n in range(PREVIEWS_AT_MOST):
        plan = plans.preview(plan, Preview(version="A", token=f"{n}".zfill(16), expires=0))
    with pytest.raises(PlanError, match="revoke one first"):
        plans.preview(plan, Preview(version="A", token="x" * 16, expires=0))
    left = plans.unpreview(plan, {"3".zfill(16)})
    assert (left.epoch, len(left.previews)) == (plan.epoch + 1, PREVIEWS_AT_MOST - 1)


def test_a_lifetime_is_counted_from_the_first_look() -> None:
    lifetimes, token = Lifetimes(), "t" * 16
    plan = Plan(default="A", serving=("A",), previews=(Preview(version="A", token=token, expires=0, seconds=10),))
    assert lifetimes.over("shop", plan, 100.0) == frozenset()
    assert lifetimes.over("other", plan, 105.0) == frozenset()
    assert lifetimes.over("shop", plan, 110.0) == {token}
    assert lifetimes.over("other", plan, 110.0) == frozenset()
    lifetimes.keep(frozenset({"other"}))
    assert lifetimes.over("shop", plan, 111.0) == frozenset()
