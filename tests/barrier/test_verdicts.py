"""A caller's verdict on a step of a ramp: what each does, that one counts once, and who may give it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.barrier.conftest import Fleet
from tests.barrier.http import Http
from tests.conftest import eventually

SHOP = "/v1/services/shop"


def percent(fleet: Fleet) -> int | None:
    ramp = fleet.store.plan("shop").ramp
    return ramp.percent if ramp else None


@pytest.fixture
def path(small: Fleet) -> str:
    """A ramp of 1, 10 and 50 % that is at its first step; a year has passed since."""
    small.deploy("A")
    number = small.begin("B", ramp=[1, 10, 50], hold="verdict").number
    small.until(number, "ramping")
    small.replicas[0].controller._monotonic = lambda: 1e9  # type: ignore[method-assign]
    small.replicas[0].wake()
    return f"{SHOP}/rollouts/{number}"


def at(fleet: Fleet, wanted: int | None) -> Callable[[], bool]:
    return lambda: percent(fleet) == wanted and fleet.get(2).request is None


def test_pass_takes_the_next_step_and_the_last_one_switches(http: Http, small: Fleet, path: str) -> None:
    for now, then in ((1, 10), (10, 50)):
        said = http("POST", f"{path}/verdict", body={"verdict": "pass", "percent": now, "reason": "as good"})
        assert said.status_code == 202, said.text
        eventually(f"{then} %", at(small, then))
        assert small.get(2).history[-1].text.endswith("(asked by deployer: verdict pass: as good)")
    assert http("POST", f"{path}/verdict", body={"verdict": "pass"}).status_code == 202
    rollout = small.until(2, "switched", done=True)
    assert rollout.state == "switched"
    late = http("POST", f"{path}/verdict", body={"verdict": "fail"})
    assert (late.status_code, "roll it back instead" in late.text) == (409, True)


def test_a_verdict_on_one_step_never_passes_the_next(http: Http, small: Fleet, path: str) -> None:
    body = {"verdict": "pass", "percent": 1}
    key = {"idempotency-key": "of the job"}
    first = http("POST", f"{path}/verdict", body=body, headers=key)
    eventually("10 %", at(small, 10))
    again = http("POST", f"{path}/verdict", body=body, headers=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    other = http("POST", f"{path}/verdict", body=body)
    assert (other.status_code, "at 10 %" in other.text) == (409, True)
    assert at(small, 10)()


def test_undecided_is_written_down_and_nothing_moves(http: Http, small: Fleet, path: str) -> None:
    said = http("POST", f"{path}/verdict", body={"verdict": "undecided", "reason": "too few requests"})
    assert said.status_code == 202
    rollout = small.get(2)
    assert (rollout.state, rollout.request, percent(small)) == ("ramping", None, 1)
    assert rollout.history[-1].text == "verdict undecided: too few requests (said by deployer)"
    [entry] = [e for e in http("GET", "/v1/audit", role="admin").json() if e["action"] == "verdict"]
    assert (entry["by"], entry["why"]) == ("deployer", "verdict undecided: too few requests")
    missing = http("GET", path, role="read").json()["missing"]
    assert missing == [{"who": "ramp", "why": "held at 1 % until a verdict on it comes; `resume` goes on at once"}]


def test_fail_takes_the_ramp_back(http: Http, small: Fleet, path: str) -> None:
    assert http("POST", f"{path}/verdict", body={"verdict": "fail", "reason": "errors"}).status_code == 202
    rollout = small.until(2, "aborted", done=True)
    assert any("verdict fail: errors" in event.text for event in rollout.history)
    assert (small.store.plan("shop").default, percent(small)) == ("A", None)


def test_only_a_ramp_takes_one_and_only_from_who_may_deploy(http: Http, small: Fleet, path: str) -> None:
    assert http("POST", f"{path}/verdict", role="read", body={"verdict": "pass"}).status_code == 403
    assert http("POST", f"{path}/verdict", body={"verdict": "perhaps"}).status_code == 422
    assert http("POST", f"{SHOP}/rollouts/77/verdict", body={"verdict": "pass"}).status_code == 404
    over = http("POST", f"{SHOP}/rollouts/1/verdict", body={"verdict": "pass"})
    assert over.status_code == 409
    small.ask(2, "pause")
    small.until(2, "paused")
    paused = http("POST", f"{path}/verdict", body={"verdict": "pass"})
    assert (paused.status_code, "no step of a ramp to judge" in paused.text) == (409, True)
    assert percent(small) == 1
