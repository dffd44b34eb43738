"""What the API says of itself is so: schemathesis calls everything that it describes, with sense and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from barrier import kinds
from barrier.bodies import Asked, BarrierView, RolloutView
from barrier.description import EXAMPLES
from barrier.rates import Rates
from barrier.store.audit import Entry
from fleet.model import Plan
from tests.barrier.conftest import Fleet, Serve
from tests.barrier.http import CONFIG, TOKENS, Http

PAGE = Path(__file__).parents[2] / "docs" / "problems.md"
SCHEMATHESIS = Path(sys.executable).parent / "st"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
#: Not what waits: the stream ends with its rollout only, and a barrier is waited for as long as one asks.
EXCLUDED = r"/events$|/barriers/"


def test_docs_show_the_problems() -> None:
    """Rewritten when PINRAIL_WRITE_DOCS is set (``make docs``)."""
    page = kinds.page()
    if os.environ.get("PINRAIL_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "docs/problems.md is not what the table says: make docs"


def test_every_problem_says_where_it_is_explained(http: Http) -> None:
    http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG)
    for answer in (
        http("GET", "/v1/services", token="guess"),
        http("GET", "/v1/services/none"),
        http("DELETE", "/v1/services"),
        http("PUT", "/v1/services/shop/config", body=CONFIG),
        http("POST", "/v1/services/shop/plan/stage", body={"version": "A"}),
        http("POST", "/v1/services/shop/rollouts", body={"bild": "A"}),
        http("POST", "/v1/services/shop/rollouts", raw=b"x"),
    ):
        problem = answer.json()
        explained = http._client.get(problem["type"])
        assert explained.status_code == 200, problem
        assert explained.text.startswith(f"{problem['title']} ({answer.status_code})")
        assert "What to do: " in explained.text
    assert http("GET", "/problems/none").status_code == 404
    assert all(f"/problems/{k.name}\n" in http("GET", "/problems").text for k in kinds.KINDS)


def test_every_body_has_an_example_that_is_one(http: Http) -> None:
    described = http("GET", "/openapi.json").json()
    schemas = described["components"]["schemas"]
    for model in Asked.__subclasses__():
        if model.__module__ == "barrier.bodies":
            model.model_validate(EXAMPLES[model.__name__])
            assert schemas[model.__name__]["examples"] == [EXAMPLES[model.__name__]]
    for answered in (BarrierView, Entry, Plan, RolloutView):
        answered.model_validate(EXAMPLES[answered.__name__])
        assert not EXAMPLES[answered.__name__].keys() - answered.model_fields.keys()
        assert schemas[answered.__name__]["examples"] == [EXAMPLES[answered.__name__]]
    answer = http("PUT", "/v1/services/shop/config", role="admin", body=EXAMPLES["ServiceConfig"])
    assert answer.status_code == 201, answer.text
    for path, item in described["paths"].items():
        for method, operation in item.items():
            assert operation.get("description"), (method, path)
            assert ("security" in operation) == path.startswith("/v1/")


@pytest.mark.timeout(300)
def test_what_is_described_is_what_is_done(serve: Serve, fleet: Fleet, tmp_path: Path) -> None:
    http = serve(lambda api: replace(api, rates=Rates.of(100_000)))
    fleet.configure()
    fleet.edge("edge-1")
    fleet.host("host-1")
    fleet.replica()
    fleet.deploy("A")
    fleet.deploy("B")
    argv: list[str | Path] = [SCHEMATHESIS, "run", f"{http.url}/openapi.json", "--checks", CHECKS, "--no-color"]
    argv += ["--header", f"Authorization: Bearer {TOKENS['admin']}", "--exclude-path-regex", EXCLUDED]
    argv += ["--phases", "fuzzing", "--max-examples", "8", "--seed", "7"]
    argv += ["--generation-database", "none", "--warnings", "off", "--request-timeout", "30", "--no-shrink"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    selected, tested = (re.search(rf"{word}: (\d+)", done.stdout) for word in ("Selected", "Tested"))
    assert selected, done.stdout[-2000:]
    assert tested, done.stdout[-2000:]
    assert int(tested[1]) == int(selected[1]) > 20
