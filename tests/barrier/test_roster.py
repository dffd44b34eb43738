"""Edges that are taken away on purpose, and come back."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from pinrail.cli import app
from tests.barrier.conftest import Fleet
from tests.barrier.fleet import Edge
from tests.barrier.http import TOKENS, Http
from tests.conftest import eventually


def test_an_edge_leaves_and_returns(http: Http, small: Fleet) -> None:
    small.deploy("A")
    edge = next(t for t in small.threads if isinstance(t, Edge) and t.name == "edge-1")
    left = http("POST", "/v1/edges/edge-1/leave", body={"reason": "less traffic"})
    assert left.json() == {"edge": "edge-1", "leaving": True, "rostered": True, "alive": True}
    eventually("its page to be red", lambda: not edge.green)
    assert small.store.fleet().roster == ("edge-1", "edge-2"), "who may still be asked is waited for"
    assert http("POST", "/v1/edges/edge-1/leave").status_code == 200
    http("POST", "/v1/edges/edge-1/evict", body={"reason": "it leaves"})
    small.deploy("B")  # its agent still runs, looks, and does not join
    assert small.store.fleet().roster == ("edge-2",)
    [shown] = [e for e in http("GET", "/v1/edges").json() if e["name"] == "edge-1"]
    assert (shown["alive"], shown["rostered"], shown["leaving"]) == (True, False, True)

    assert http("POST", "/v1/edges/edge-1/return", body={"reason": "more"}).json()["leaving"] is False
    eventually("it to join", lambda: small.store.fleet().roster == ("edge-1", "edge-2"))
    eventually("its page to be green", lambda: edge.green)
    actions = [e["action"] for e in http("GET", "/v1/audit").json() if e["edge"] == "edge-1"]
    assert actions == ["return", "evict", "leave"], "the repeated one was no change"
    for verb in ("leave", "return"):
        gone = http("POST", f"/v1/edges/edge-7/{verb}")
        assert (gone.status_code, gone.json()["edges"]) == (404, ["edge-1", "edge-2"])


def test_the_command(http: Http, fleet: Fleet) -> None:
    fleet.configure()
    fleet.edge("edge-1")
    eventually("edge-1 to join", lambda: fleet.store.fleet().roster == ("edge-1",))

    def pinrail(*argv: str) -> str:
        environment = {"PINRAIL_URL": http.url, "PINRAIL_TOKEN": TOKENS["deploy"], "COLUMNS": "160"}
        done = CliRunner().invoke(app, argv, env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    said = pinrail("edge", "leave", "edge-1", "--drain", "0", "--reason", "sold", "--json")
    left = json.loads(said[said.index("{\n") :])  # the service runs in this process and logs to the same place
    assert (left["rostered"], left["leaving"]) == (True, True)
    assert "ignore it, leaving" in pinrail("edges")
    pinrail("edge", "return", "edge-1")
    eventually("edge-1 to join", lambda: fleet.store.fleet().roster == ("edge-1",))
