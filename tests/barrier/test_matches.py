"""Whose requests are whose: two services never claim the same, and a confined token takes nothing from anybody."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from barrier import matches, tokenfile
from edge import render
from fleet.model import Match
from tests.barrier.conftest import Fleet
from tests.barrier.http import CONFIG, Http

HOSTS = ("*", "*.b.example", "*.example", "x.b.example", "b.example", "X.B.example")
PATHS = ("/", "/p", "/p/", "/p/q", "/pq")
ASKED = [
    (h, u)
    for h in ("x.b.example", "y.x.b.example", "b.example", "example", "else")
    for u in ("/", "/p", "/p?a", "/p/", "/p/q", "/p/q/r", "/pq", "/z")
]


def gets(match: Match, host: str, url: str) -> bool:
    (rule,) = render.rules([render.Route("any", (match,))])
    hosts = not rule["host"] or re.search(rf"(?i)^{rule['host']}\.?(?::[0-9]+)?$", host) is not None
    return hosts and url.startswith(rule["start"]) and re.search(f"^{rule['path']}", url) is not None


def test_it_is_as_edges_route() -> None:
    every = [Match(host=h, path=p) for h in HOSTS for p in PATHS]
    for mine, theirs in itertools.product(every, every):
        both = any(gets(mine, h, u) and gets(theirs, h, u) for h, u in ASKED)
        first = render._precedence(("same", mine))[:3] <= render._precedence(("same", theirs))[:3]
        assert matches.takes_from(mine, theirs) == (both and first), (mine, theirs)
        if matches.same(mine, theirs):
            assert all(gets(mine, h, u) == gets(theirs, h, u) for h, u in ASKED)


def put(http: Http, service: str, *, token: str | None = None, **fields: object) -> tuple[int, dict[str, object]]:
    body = CONFIG | {"match": [{"host": "*", "path": "/"}]} | fields
    answer = http("PUT", f"/v1/services/{service}/config", role="admin", token=token, body=body)
    return answer.status_code, answer.json()


def on(*hosts_and_paths: str) -> list[dict[str, str]]:
    return [{"host": h, "path": f"/{p}"} for h, _, p in (each.partition("/") for each in hosts_and_paths)]


def test_two_services_cannot_claim_the_same_requests(http: Http) -> None:
    assert put(http, "shop", match=on("a.example", "b.example/app"))[0] == 201
    status, problem = put(http, "web", match=on("c.example", "B.Example/app"))
    assert (status, problem["service"]) == (409, "shop")
    assert str(problem["detail"]).startswith("match: B.Example/app is what shop matches too: give it a host or a path")
    assert [s["service"] for s in http("GET", "/v1/services").json()] == ["shop"]
    assert put(http, "web", match=on("a.example/more", "*"))[0] == 201, "more or less specific is no clash"
    assert put(http, "web", match=on("a.example"))[0] == 409
    assert put(http, "shop", match=on("a.example"), keep=7)[0] == 200, "with itself there is none"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"match": on("shop.example", "a.example/api")}, "match: a.example/api takes requests from web"),
        ({"match": on("shop.example", "x.wild.example")}, "match: x.wild.example/ takes requests from web"),
        ({"match": on("shop.example"), "ports": [7000, 9001]}, "ports: 9001 is a port of web on every host"),
        ({"match": on("shop.example"), "when_stalled": "evict"}, "when_stalled: evict takes an edge off the roster"),
    ],
)
def test_a_confined_token_takes_nothing_from_others(
    http: Http, tokens: Path, fleet: Fleet, fields: dict[str, object], said: str
) -> None:
    mine = tokenfile.create(tokens, "mine", "admin", ["shop"])
    put(http, "web", match=on("a.example", "*.wild.example"), ports=[9000, 9001])
    assert put(http, "shop", token=mine, match=on("shop.example", "a.example.org"))[0] == 201
    status, problem = put(http, "shop", token=mine, **fields)
    assert (status, str(problem["detail"]).startswith(said)) == (403, True), problem
    assert "only a token for all services may do that" in str(problem["detail"])
    assert put(http, "shop", **fields)[0] == 200, "who may do everything may do that"
    assert put(http, "shop", token=mine, keep=9, **fields)[0] == 200, "and what was given stays"
    same = put(http, "shop", token=mine, match=on("a.example"))
    assert (same[0], same[1]["service"]) == (409, "web")
