"""A rollout that is asked for while another one is active: refused, or it waits, by the service's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from tests.barrier.conftest import Fleet
from tests.barrier.http import Http

SHOP = "/v1/services/shop"


@pytest.fixture
def held(fleet: Fleet) -> Fleet:
    """Rollout 3, to C, waits for an edge that does not drain; others may queue."""
    fleet.configure(when_busy="queue")
    edge = fleet.edge("edge-1")
    fleet.host("host-1")
    fleet.replica()
    fleet.deploy("A")
    fleet.deploy("B")
    edge.drains = False
    fleet.until(fleet.begin("C").number, "withdrawing")
    return fleet


def release(fleet: Fleet) -> None:
    edge = fleet.threads[0]
    edge.drains = True  # type: ignore[attr-defined]
    edge.wake()


def begin(http: Http, build: str, **fields: object) -> dict[str, Any]:
    answer = http("POST", f"{SHOP}/rollouts", body={"build": build} | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_it_begins_when_the_active_one_is_over(held: Fleet, http: Http) -> None:
    waiting = begin(http, "D")
    assert (waiting["number"], waiting["state"], waiting["done"]) == (4, "queued", False)
    shown = http("GET", f"{SHOP}/rollouts/4").json()
    assert shown["missing"] == [{"who": "rollout 3", "why": "of C is withdrawing"}]
    seen = http("GET", SHOP).json()
    assert (seen["rollout"]["number"], seen["queued"]["number"]) == (3, 4)
    assert http("GET", "/v1/audit?last=1").json()[0]["what"] == "queues rollout 4 of shop to D"
    release(held)
    held.until(4, "switched", done=True)
    assert held.get(3).state == "switched"
    assert held.get(4).previous == "C"
    assert http("GET", SHOP).json()["queued"] is None


def test_the_newest_wins(held: Fleet, http: Http) -> None:
    begin(http, "D")
    begin(http, "E")
    over = held.get(4)
    assert (over.state, over.done) == ("aborted", True)
    assert over.history[-1].text == "aborted before it began: rollout 5 takes its place (asked by deployer)"
    release(held)
    held.until(5, "switched", done=True)
    assert [p.default for p in held.threads[0].plans if "D" in p.serving] == []  # type: ignore[attr-defined]


def test_it_can_be_taken_out_again_and_cannot_be_paused(held: Fleet, http: Http) -> None:
    begin(http, "D")
    assert http("POST", f"{SHOP}/rollouts/4/pause").status_code == 409
    out = http("POST", f"{SHOP}/rollouts/4/abort", body={"reason": "not yet"})
    assert (out.status_code, out.json()["state"], out.json()["done"]) == (202, "aborted", True)
    assert http("GET", "/v1/audit?last=1").json()[0]["what"] == "takes rollout 4 of shop out of the queue"
    release(held)
    held.until(3, "switched", done=True)
    assert http("POST", f"{SHOP}/rollouts/4/abort").status_code == 409
    begin(http, "D")  # nothing is active: it begins at once
    held.until(5, "switched", done=True)


def test_what_cannot_wait_is_refused(held: Fleet, http: Http) -> None:
    epoch = http("GET", SHOP).json()["plan"]["epoch"]
    answer = http("POST", f"{SHOP}/rollouts", body={"build": "D", "expected_epoch": epoch})
    assert (answer.status_code, answer.json()["active"]["number"]) == (409, 3)
    assert "cannot expect an epoch" in answer.json()["detail"]
    begin(http, "D")
    held.configure(when_busy="refuse")
    refused = http("POST", f"{SHOP}/rollouts", body={"build": "E"})
    assert (refused.status_code, refused.json()["active"]["number"]) == (409, 3)
    again = http("POST", f"{SHOP}/rollouts", body={"build": "D"}, headers={"idempotency-key": "k"})
    assert again.status_code == 409
    release(held)
    held.until(4, "switched", done=True)  # what waits is not forgotten


def test_a_rollback_goes_before_what_waits(held: Fleet, http: Http) -> None:
    edge = held.threads[0]
    edge.hold_at = held.store.plan("shop").epoch + 1  # type: ignore[attr-defined]  # the offer, and not the switch
    release(held)
    held.until(3, "switched")
    begin(http, "D")
    assert http("POST", f"{SHOP}/rollouts/3/rollback", body={"reason": "no"}).status_code == 202
    held.until(3, "rolling_back")
    edge.hold_at = None  # type: ignore[attr-defined]
    release(held)
    held.until(3, "rolled_back", done=True)
    held.until(4, "switched", done=True)
    assert held.get(4).previous == "B"
