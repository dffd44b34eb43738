"""Tokens: the file that keeps their hashes, the command that changes it, and what the API makes of it."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from barrier import auth, tokenfile
from barrier.problems import Problem
from fleet.config import BadConfig
from pinrail.cli import app
from tests.barrier.conftest import Fleet
from tests.barrier.http import CONFIG, Http


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def pinrail(*argv: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["token", *map(str, argv)], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stderr
    return done.stdout, done.stderr


def bearer(token: str) -> str:
    return f"Bearer {token.strip()}"


def test_a_token_is_shown_once_and_kept_as_its_hash(file: Path) -> None:
    out, err = pinrail("create", "ci", "--role", "deploy", "--service", "shop", "--service", "web", "--file", file)
    token = out.strip()
    assert len(token) >= 43
    assert token not in err
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tomllib.loads(file.read_text()) == {
        "token": [{"name": "ci", "role": "deploy", "services": ["shop", "web"], "sha256": auth.digest(token)}]
    }
    found = auth.Tokens(file).identify(bearer(token), "deploy")
    assert (found.name, found.role, found.services) == ("ci", "deploy", ("shop", "web"))

    made = json.loads(pinrail("create", "boss", "--role", "admin", "--file", file, "--json")[0])
    assert (made["name"], made["role"], made["services"]) == ("boss", "admin", [])
    assert made["token"] != token
    assert json.loads(pinrail("list", "--file", file, "--json")[0]) == [
        {"name": "ci", "role": "deploy", "services": ["shop", "web"]},
        {"name": "boss", "role": "admin", "services": []},
    ]
    shown = pinrail("list", "--file", file)[0].splitlines()
    assert [line.split() for line in shown[1:]] == [["ci", "deploy", "shop,", "web"], ["boss", "admin", "all"]]


def test_a_revoked_token_opens_nothing_and_the_others_still_do(file: Path) -> None:
    ci = pinrail("create", "ci", "--role", "deploy", "--file", file)[0]
    boss = pinrail("create", "boss", "--role", "admin", "--file", file)[0]
    tokens = auth.Tokens(file)
    assert tokens.identify(bearer(ci), "read").name == "ci"
    assert "no token with the role admin" not in pinrail("revoke", "ci", "--file", file)[1]
    with pytest.raises(Problem, match="not known here"):
        tokens.identify(bearer(ci), "read")
    assert tokens.identify(bearer(boss), "admin").name == "boss"
    assert "no token with the role admin is left" in pinrail("revoke", "boss", "--file", file)[1]
    with pytest.raises(Problem):
        tokens.identify(bearer(boss), "admin")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("create", "ci", "--role", "deploy"), "has a token ci already"),
        (("create", "new", "--role", "root"), "'root' is not one of"),
        (("create", "a/b", "--role", "read"), "'a/b' is not a node name"),
        (("create", "new", "--role", "read", "--service", "No"), "'No' is not a service name"),
        (("create", "new"), "Missing option"),
        (("revoke", "cy"), "has no token cy: there is ci"),
    ],
)
def test_what_was_typed_wrong_changes_nothing(file: Path, argv: tuple[str, ...], said: str) -> None:
    pinrail("create", "ci", "--role", "read", "--file", file)
    before = file.read_bytes()
    assert said in pinrail(*argv, "--file", file, code=2)[1]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "is not TOML"),
        ('[[token]]\nname = "x"\nrole = "king"\nsha256 = "00"\n', "token.0.role"),
        ('[[token]]\nname = "x"\nrole = "read"\n', "token.0.sha256"),
        ("colour = 1\n", "colour: is not a known key"),
    ],
)
def test_a_file_that_cannot_be_read_is_left_alone(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    for argv in (("create", "ci", "--role", "read"), ("revoke", "x"), ("list",)):
        assert said in pinrail(*argv, "--file", file, code=2)[1]
    assert file.read_text() == text


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, file: Path) -> None:
    assert "No such file" in pinrail("create", "x", "--role", "read", "--file", tmp_path / "no" / "t.toml", code=2)[1]
    assert "cannot read" in pinrail("revoke", "x", "--file", file, code=2)[1]
    assert not file.exists()


def test_two_changes_at_once_both_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenfile, "LOCK_SECONDS", 0.1)
    fd = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(BadConfig, match="another process is changing"):
            tokenfile.create(file, "ci", "read")
    finally:
        os.close(fd)
    tokenfile.create(file, "ci", "read")


def test_a_link_stays_a_link(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link.toml"
    tokenfile.create(file, "ci", "read")
    link.symlink_to(file)
    tokenfile.create(link, "boss", "admin")
    assert link.is_symlink()
    assert [e.name for e in tokenfile.entries(file)] == ["ci", "boss"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write another user's file")
def test_the_service_can_still_read_a_file_that_root_has_changed(file: Path) -> None:
    tokenfile.create(file, "ci", "read")
    os.chown(file, 4321, 4322)
    tokenfile.create(file, "boss", "admin")
    after = file.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (4321, 4322, 0o600)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    seen: list[str] = []
    real = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        seen.append(a)
        return real(a, b)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    return seen  # type: ignore[return-value]


def test_a_token_is_compared_with_all_of_them_in_constant_time(file: Path, compared: list[str]) -> None:
    made = [tokenfile.create(file, name, "read") for name in ("a", "b", "c")]
    tokens = auth.Tokens(file)
    hashes = [auth.digest(t) for t in made]
    for asked in (made[0], made[2]):
        compared.clear()
        tokens.identify(bearer(asked), "read")
        assert compared == hashes, "a match ends nothing"
    compared.clear()
    with pytest.raises(Problem):
        tokens.identify(bearer("guess"), "read")
    assert compared == hashes


def test_a_service_that_is_not_the_tokens_own_is_refused(http: Http, tokens: Path, fleet: Fleet) -> None:
    for service in ("shop", "web"):
        config = CONFIG | {"match": [{"host": f"{service}.example"}]}
        http("PUT", f"/v1/services/{service}/config", role="admin", body=config)
    mine = tokenfile.create(tokens, "mine", "admin", ["shop"])
    fleet.edge("edge-1")
    for method, path, body in (
        ("GET", "/v1/services/web", None),
        ("GET", "/v1/services/web/plan", None),
        ("GET", "/v1/services/web/rollouts", None),
        ("GET", "/v1/services/web/rollouts/1/events", None),
        ("GET", "/v1/services/web/barriers/applied-1", None),
        ("GET", "/v1/services/nowhere", None),
        ("GET", "/v1/audit?service=web", None),
        ("POST", "/v1/services/web/rollouts", {"build": "A"}),
        ("POST", "/v1/services/web/rollouts/1/abort", {}),
        ("POST", "/v1/services/web/plan/withdraw", {"version": "A"}),
        ("PUT", "/v1/services/web/config", CONFIG),
        ("PUT", "/v1/services/new/config", CONFIG),
        ("DELETE", "/v1/services/web", None),
    ):
        refused = http(method, path, token=mine, body=body)
        assert (refused.status_code, refused.json()["services"]) == (403, ["shop"]), (method, path, refused.text)
        assert "the token of mine is for shop only, not for " in refused.json()["detail"]
    evicted = http("POST", "/v1/edges/edge-1/evict", token=mine, body={"reason": "mine"})
    assert (evicted.status_code, "what concerns all services" in evicted.text) == (403, True)

    assert [s["service"] for s in http("GET", "/v1/services", token=mine).json()] == ["shop"]
    assert [s["service"] for s in http("GET", "/v1/services", role="read").json()] == ["shop", "web"]
    assert {e["service"] for e in http("GET", "/v1/audit", token=mine).json()} == {"shop"}
    assert http("POST", "/v1/services/shop/rollouts", token=mine, body={"build": "A"}).status_code == 201
    assert all(set(e["services"]) <= {"shop"} for e in http("GET", "/v1/edges", token=mine).json())
