"""How often somebody may ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from barrier.rates import Rate, Rates
from tests.barrier.conftest import Serve
from tests.barrier.http import Http


def test_a_bucket_empties_and_fills() -> None:
    now = [100.0]
    rate = Rate(2.0, 3, monotonic=lambda: now[0])
    assert [rate.take("ann") for _ in range(3)] == [0, 0, 0]
    assert rate.take("ann") == rate.wait("ann") == 0.5
    assert rate.take("bob") == 0, "each has a bucket"
    now[0] += 0.5
    assert (rate.wait("ann"), rate.take("ann"), rate.take("ann")) == (0, 0, 0.5)
    now[0] += 1000
    assert [rate.take("ann") > 0 for _ in range(4)] == [False, False, False, True], "never more than the burst"


def test_so_many_callers_are_remembered_and_no_more() -> None:
    rate = Rate(1.0, 1, callers=10)
    for n in range(1000):
        rate.take(str(n))
    assert len(rate._left) == 10
    assert (rate.wait("999") > 0, rate.wait("0")) == (True, 0)


@pytest.fixture
def slow(serve: Serve) -> Iterator[Http]:
    """Nothing fills up again."""
    rates = Rates(Rate(0.001, 3), Rate(0.001, 4), Rate(0.001, 5))
    yield serve(lambda api: replace(api, rates=rates), ready=False)


def refused(answer: object) -> bool:
    status, headers = answer.status_code, answer.headers  # type: ignore[attr-defined]
    assert (status == 429) == ("retry-after" in headers)
    return bool(status == 429)


def test_a_token_that_asks_too_often_waits_and_others_do_not(slow: Http) -> None:
    assert [refused(slow("GET", "/v1/services")) for _ in range(4)] == [False, False, False, True]
    late = slow("GET", "/v1/services")
    assert (late.json()["title"], "with the token of deployer" in late.json()["detail"]) == ("Too often", True)
    assert slow("GET", "/v1/services", role="read").status_code == 200


def test_what_needs_no_token_is_limited_by_address(slow: Http) -> None:
    assert [refused(slow("GET", "/healthz")) for _ in range(5)] == [False] * 4 + [True]
    other = {"x-forwarded-for": "192.0.2.7"}
    assert slow("GET", "/healthz", headers=other).status_code == 200, "a proxy on this machine says whose it is"


def test_whoever_tries_tokens_is_slowed(slow: Http) -> None:
    tried = [slow("GET", "/v1/services", token=f"guess-{n}").status_code for n in range(7)]
    assert tried == [401] * 5 + [429] * 2
    assert "too many unknown tokens from 127.0.0.1" in slow("GET", "/v1/services", token="x").json()["detail"]
    assert slow("GET", "/v1/services").status_code == 429, "not even a right one is looked at"
    other = {"x-forwarded-for": "192.0.2.7"}
    assert slow("GET", "/v1/services", headers=other).status_code == 200
    for _ in range(9):  # to say nothing is no guess
        assert slow._client.get("/v1/services", headers=other).status_code == 401
