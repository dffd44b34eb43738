"""The main job on a real fleet: releases roll through it under load, are rolled back, and no client notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pinrail.demo import check
from pinrail.local.state import FleetState
from tests.conftest import eventually
from tests.end_to_end import course
from tests.local.conftest import run

pytestmark = pytest.mark.timeout(400)
BUILDS = [("A", "e2e-a"), ("B", "e2e-b"), ("C", "e2e-c")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetState]:
    """Two edges, two hosts; the first build of the sample service is deployed."""
    yield from course.fleet(tmp_path_factory.mktemp("e2e") / "fleet")


def test_three_releases_and_a_rollback_go_unnoticed(fleet: FleetState) -> None:
    way = course.releases(fleet, BUILDS)
    promises = check.promises(way.judged, way.releases, way.different)
    assert {p.name: p.broken for p in promises if p.broken} == {}
    # The first release found one version running, the others two: those withdrew the oldest first.
    assert [r.withdrawn for r in way.releases] == [(), (way.base,), ("e2e-a",), ()]
    assert sum(c.forced for c in way.judged.counts) > 0, "nobody was on the oldest version: nothing was tried"


def served(url: str, pin: str | None = None) -> tuple[str, str]:
    headers = {"x-deployment-id": pin} if pin else {}
    answer = httpx.get(f"{url}/api/feed", headers=headers, timeout=10, trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["build"] == answer.headers["x-deployment-id"]
    return answer.headers["x-deployment-id"], answer.headers["x-deployment-status"]


def test_one_rollout_can_be_followed_through_all_parts_by_its_number(fleet: FleetState) -> None:
    """The third release: ordered, given to hosts, installed, loaded, acknowledged, switched, in that order."""
    at = ("--dir", fleet.directory)
    done = run("rollout", "list", "ngapp", "--json", *at)
    number = next(r["number"] for r in json.loads(done.stdout) if r["build"] == "e2e-b")
    lines = course.logs(fleet, "--service", "ngapp", "--rollout", number)
    assert {line["pairs"]["rollout"] for line in lines} == {str(number)}
    who = {line["part"] for line in lines}
    assert who >= {*(e.id for e in fleet.edges), *(h.id for h in fleet.hosts)}, who
    assert any(p.startswith("barrier-") for p in who), who
    course.in_order(
        lines,
        "begins rollout",
        "withdraw a1",
        "committed",
        "acknowledged",
        "every edge has drained",
        "their turn: host-",
        "step=start",
        "step=check",
        "every host runs e2e-b",
        "loaded",
        "committed",
        "every edge has switched to e2e-b",
    )
    course.in_order(lines, "step=fetch", "step=unpack", "step=stop", "step=start")
    # Nothing that is about it is left out: whatever names it carries its number.
    named = [line for line in course.logs(fleet) if f"rollout {number} " in line["text"].replace(":", " ")]
    assert len(named) > 5
    assert {line["pairs"].get("rollout") for line in named} == {str(number)}
    others = course.logs(fleet, "--service", "ngapp", "--rollout", number + 1)
    assert not {json.dumps(line) for line in lines} & {json.dumps(line) for line in others}


def test_by_hand_with_the_commands_of_the_readme(fleet: FleetState, tmp_path: Path) -> None:
    """After the releases: C was rolled back, so B is the default and C still served."""
    at = ("--dir", fleet.directory)
    for edge in fleet.edges:
        assert served(edge.url) == ("e2e-b", "current")
        assert served(edge.url, "e2e-c") == ("e2e-c", "previous")
        assert served(edge.url, "e2e-a") == ("e2e-b", "retired")
    again = run("deploy", "ngapp", "e2e-c", "--wait", *at, seconds=120)
    assert (again.returncode, "install" in again.stderr + again.stdout) == (0, False), "it is served: only a switch"
    assert [served(e.url)[0] for e in fleet.edges] == ["e2e-c", "e2e-c"]
    assert run("rollback", "ngapp", *at).returncode == 0
    assert [served(e.url)[0] for e in fleet.edges] == ["e2e-b", "e2e-b"]
    unknown = run("deploy", "ngapp", "e2e-z", "--wait", *at)
    assert unknown.returncode == 2
    assert "there are " in unknown.stderr
    shown = json.loads(run("rollout", "list", "ngapp", "--json", *at).stdout)
    assert [r["state"] for r in shown][:2] == ["rolled_back", "rolled_back"]


def test_a_build_that_nobody_signed_does_not_run_until_somebody_does(fleet: FleetState, tmp_path: Path) -> None:
    """Whoever has the keys of S3 and no signing key can put a build there, and hosts will not have it."""
    from pinrail.local import sample

    at = ("--dir", fleet.directory)
    sample.tree(tmp_path / "tree", "e2e-u")
    (tmp_path / "tree" / "requirements.txt").write_text("not a requirement that pip would take\n")
    put = run(
        *("build", "publish", tmp_path / "tree", "--service", "ngapp", "--build", "e2e-u"),
        PINRAIL_S3_ENDPOINT=fleet.s3,
        PINRAIL_S3_BUCKET=fleet.bucket,
        AWS_SHARED_CREDENTIALS_FILE=str(fleet.s3_credentials),
    )
    assert put.returncode == 0, put.stderr
    refused = run("deploy", "ngapp", "e2e-u", "--wait", "--timeout", 90, *at, seconds=120)
    assert refused.returncode == 1, refused.stderr
    assert "ngapp e2e-u is not signed; sign it anew: pinrail build sign ngapp e2e-u" in refused.stderr
    assert run("build", "sign", "ngapp", "e2e-u", *at).returncode == 0
    assert run("rollout", "resume", "ngapp", *at).returncode == 0
    eventually(
        "its post-install to be run, and to fail",
        lambda: "post-install of ngapp e2e-u failed" in run("rollout", "show", "ngapp", "--json", *at).stdout,
        60,
    )
    aborted = run("rollout", "abort", "ngapp", "--wait", *at, seconds=120)
    assert aborted.returncode == 0, aborted.stderr
    assert [served(e.url) for e in fleet.edges] == [("e2e-b", "current")] * 2


def test_a_host_that_cannot_start_a_build_pauses_the_rollout_and_an_abort_puts_everything_back(
    fleet: FleetState, tmp_path: Path
) -> None:
    from pinrail.local import sample

    at = ("--dir", fleet.directory)
    tree = tmp_path / "sick"
    sample.tree(tree, "e2e-sick")
    (tree / "serve.py").write_text("import sys; sys.exit('this build is broken')\n")
    published = run("build", "publish", tree, "--service", "ngapp", "--build", "e2e-sick", *at)
    assert published.returncode == 0, published.stderr
    before = [served(e.url) for e in fleet.edges]
    failed = run("deploy", "ngapp", "e2e-sick", "--wait", "--timeout", 90, *at, seconds=120)
    assert failed.returncode == 1, failed.stderr
    assert "this build is broken" in failed.stderr
    assert [served(e.url) for e in fleet.edges] == before
    aborted = run("rollout", "abort", "ngapp", "--wait", *at, seconds=120)
    assert aborted.returncode == 0, aborted.stderr
    for edge in fleet.edges:
        assert served(edge.url) == ("e2e-b", "current")
        assert served(edge.url, "e2e-c") == ("e2e-c", "previous"), "what was withdrawn for it is back"
    other = tmp_path / "other"
    sample.tree(other, "e2e-other")
    refused = run("build", "publish", other, "--service", "ngapp", "--build", "e2e-sick", *at)
    assert refused.returncode == 1
    assert "e2e-sick" in refused.stderr


def test_what_was_revoked_starts_nowhere_although_it_is_on_every_disk(fleet: FleetState) -> None:
    at = ("--dir", fleet.directory)
    served_now = run("build", "revoke", "ngapp", "e2e-b", *at)
    assert (served_now.returncode, "--even-served" in served_now.stderr) == (1, True), served_now.stderr
    unknown = run("build", "revoke", "ngapp", "e2e-z", *at)
    assert (unknown.returncode, "e2e-z is not signed" in unknown.stderr) == (1, True), unknown.stderr
    done = run("build", "revoke", "ngapp", "b2", "--reason", "it leaks", "--json", *at)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revoked"] == ["a1", "b2"], "and what was signed before it"
    assert "it leaks" in run("audit", "ngapp", "--last", 1, *at).stdout
    refused = run("deploy", "ngapp", "a1", "--wait", "--timeout", 90, *at, seconds=120)
    assert refused.returncode == 1, refused.stderr
    assert "ngapp a1 was revoked" in refused.stderr
    assert run("rollout", "abort", "ngapp", "--wait", *at, seconds=120).returncode == 0
    assert [served(e.url)[0] for e in fleet.edges] == ["e2e-b", "e2e-b"]


def test_every_query_of_the_dashboards_finds_what_the_releases_left(fleet: FleetState) -> None:
    if fleet.prometheus is None:
        pytest.skip("prometheus is not installed")
    eventually("every query of every dashboard finds series", lambda: not course.empty_queries(fleet), 90)
    steps = course.prometheus(fleet, 'pinrail_rollout_step_timestamp_seconds{service="ngapp"}')
    assert {s["metric"]["step"] for s in steps} >= {"withdrawing", "installing", "offering", "switched", "rolled_back"}
    assert {"e2e-a", "e2e-b", "e2e-c"} <= {s["metric"]["build"] for s in steps}
    alerts = course.prometheus(fleet, 'ALERTS{alertstate="firing"}')
    named = {a["metric"]["alertname"] for a in alerts}
    assert not named & {"PinrailFault", "PinrailDocumentWentBack", "PinrailVersionGone"}, named
