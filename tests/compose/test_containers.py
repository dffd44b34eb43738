"""What the images run, without an engine: what a container is told, the secrets, and the two processes of one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from barrier.config import TokensFile
from fleet import access, config
from fleet.config import BadConfig
from fleet.model import Plan
from pinrail.containers import given, secrets
from pinrail.containers.whole import lacks
from pinrail.local import config as local
from pinrail.local import state
from tests.conftest import eventually
from tests.local.conftest import run

FLEET = {
    "PINRAIL_ZOOKEEPER": "zk-1:2181/pinrail",
    "PINRAIL_S3": "http://s3:8333",
    "PINRAIL_EDGES": "edge-1,edge-2",
    "PINRAIL_HOSTS": "host-1=10.0.0.1,host-2=10.0.0.2",
    "PINRAIL_BARRIERS": "barrier-1",
}


# -- what it is told --------------------------------------------------------------------------------------------------


def test_all_that_is_missing_is_said_in_one_line() -> None:
    with pytest.raises(BadConfig) as said:
        given.read(given.Host, {"PINRAIL_NAME": "host-1", "PINRAIL_ZOOKEEPER": ""})
    assert str(said.value).startswith("PINRAIL_ZOOKEEPER is not set; PINRAIL_ADDRESS is not set; PINRAIL_S3 is not set")


def test_what_makes_no_sense_is_named() -> None:
    with pytest.raises(BadConfig, match=r"PINRAIL_LEAVE_SECONDS: .*number"):
        given.read(given.Edge, {"PINRAIL_NAME": "e", "PINRAIL_ZOOKEEPER": "z:1/p", "PINRAIL_LEAVE_SECONDS": "a while"})


def test_a_directory_that_takes_nothing_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match="cannot be written: "):
        given.room(tmp_path / "file" / "below")
    assert list(given.room(tmp_path / "new").iterdir()) == []


# -- secrets ----------------------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_secrets_are_made_once_and_each_kind_gets_its_own(tmp_path: Path) -> None:
    told = given.read(given.Fleet, FLEET)
    assert secrets.make(told, tmp_path)
    made = contents(tmp_path)
    assert not secrets.make(told, tmp_path)
    assert contents(tmp_path) == made
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in made)
    assert sorted(n for n in made if n.startswith("edge/")) == ["edge/zookeeper.toml"]

    fleet = state.load(tmp_path / "tools")
    assert fleet is not None
    # The parts' files fit together: users, the signer that hosts believe, the tokens' hashes.
    files = {r: config.load_secret(tmp_path / r / secrets.ZOOKEEPER, access.Access) for r in access.ROLES}
    assert {f.role: access.digest(f.role, f.secret) for f in files.values()} == files["edge"].digests
    assert not files["edge"].anyone_reads
    assert local.signing_key(fleet).public.text == made["host/signers"].decode().strip()
    assert {t.role for t in config.load(tmp_path / "barrier" / secrets.TOKENS, TokensFile).token} == {
        "read",
        "deploy",
        "admin",
    }
    others = b"".join(data for name, data in made.items() if not name.startswith("tools/"))
    assert fleet.token.admin.encode() not in others
    assert b"PRIVATE KEY" not in others


def test_secrets_that_were_cut_off_are_made_anew_as_a_whole(tmp_path: Path) -> None:
    told = given.read(given.Fleet, FLEET)
    secrets.make(told, tmp_path)
    (tmp_path / "tools" / state.FILE).unlink()
    before = contents(tmp_path)
    assert secrets.make(told, tmp_path)
    after = contents(tmp_path)
    assert not {n for n, data in before.items() if after[n] == data}


def test_who_there_is_may_change_and_the_tokens_stay(tmp_path: Path) -> None:
    secrets.make(given.read(given.Fleet, FLEET), tmp_path)
    before = state.load(tmp_path / "tools")
    secrets.make(given.read(given.Fleet, FLEET | {"PINRAIL_EDGES": "edge-1"}), tmp_path)
    after = state.load(tmp_path / "tools")
    assert before is not None and after is not None
    assert ([e.id for e in after.edges], after.token) == (["edge-1"], before.token)


def test_its_parts_are_looked_at_and_not_stopped_by_pinrail(tmp_path: Path) -> None:
    """No process of it is on this machine; where nobody answers, that is said and not taken for a fleet that ended."""
    secrets.make(given.read(given.Fleet, FLEET), tmp_path)
    shown = run("status", "--dir", tmp_path / "tools")
    assert shown.returncode == 0, shown.stderr
    assert "edge-2" in shown.stdout and "the barrier service does not answer" in shown.stdout.replace("\n", " ")
    refused = run("stop", "edge-1", "--dir", tmp_path / "tools")
    assert (refused.returncode, "docker compose" in refused.stderr) == (2, True), refused.stderr


def test_the_page_is_where_a_browser_finds_it(tmp_path: Path) -> None:
    """Outside the containers, at the published ports; elsewhere at the addresses that the commands use."""
    secrets.make(given.read(given.Fleet, FLEET), tmp_path)
    tools = tmp_path / "tools"
    fleet = state.load(tools)
    assert fleet is not None

    def shown(**told: str) -> str:
        done = run("page", "--role", "read", "--dir", tools, **told)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    token = f"/#token={fleet.token.read}"
    assert shown(PINRAIL_PAGES="http://127.0.0.1:8301,http://127.0.0.1:8302") == f"http://127.0.0.1:8301{token}"
    assert shown(PINRAIL_PAGES="http://0.0.0.0:8301") == f"http://localhost:8301{token}"
    assert shown() == f"http://barrier-1:8300{token}"


def test_hosts_without_addresses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="NAME=ADDRESS"):
        secrets.make(given.read(given.Fleet, FLEET | {"PINRAIL_HOSTS": "host-1"}), tmp_path)


# -- is it whole ------------------------------------------------------------------------------------------------------

PLANS = {"shop": Plan(epoch=7, default="b", serving=("b", "a"))}


def an_edge(*, alive: bool = True, behind: str | None = None, b: int = 2) -> dict[str, Any]:
    shop = {"behind": behind, "ack": {"healthy": {"a": 2, "b": b}}}
    return {"alive": alive, "rostered": True, "services": {"shop": shop}}


def a_host(**slots: str) -> dict[str, Any]:
    return {"services": {"shop": {"status": {"slots": [{"build": b, "state": s} for b, s in slots.items()]}}}}


def lacking(edge: Any = None, host: Any = None) -> list[str]:
    edges = {"edge-1": an_edge(), "edge-2": edge or an_edge()}
    hosts = {"host-1": a_host(a="serving", b="serving"), "host-2": host or a_host(a="serving", b="serving")}
    return lacks(("edge-1", "edge-2"), ("host-1", "host-2"), PLANS, (edges, hosts))


def test_a_fleet_is_whole_when_all_serve_all_that_the_plan_serves() -> None:
    assert lacking() == []
    assert lacks(("edge-1",), ("host-1",), {}, ({"edge-1": an_edge()}, {})) == [], "nothing is configured yet"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("edge-2 is away", {"edge": an_edge(alive=False)}),
        ("edge-2 of shop: not applied", {"edge": an_edge(behind="not applied")}),
        ("edge-2 sees hosts of shop: b 1/2", {"edge": an_edge(b=1)}),
        ("host-2 does not serve shop b", {"host": a_host(a="serving", b="starting")}),
        ("host-2 does not serve shop b, a", {"host": {"services": {}}}),
    ],
)
def test_what_is_not_whole_is_named(said: str, what: dict[str, Any]) -> None:
    assert lacking(**what) == [said]


# -- a server and its agent -------------------------------------------------------------------------------------------

_PAIR = """
import subprocess, sys
from pinrail.containers import pair

server, agent, leave = (["sh", "-c", s] for s in sys.argv[1:])
sys.exit(pair.run(server, agent, lambda: float(subprocess.run(leave, stdout=-1).stdout)))
"""


@contextmanager
def pair(server: str, agent: str, leave: str = "echo 0") -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _PAIR, server, agent, leave]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def lines(path: Path) -> Callable[[], list[str]]:
    return lambda: path.read_text().split() if path.exists() else []


def test_an_agent_that_ends_is_started_again_and_its_server_lives(tmp_path: Path) -> None:
    server, agents = lines(tmp_path / "server"), lines(tmp_path / "agents")
    with pair(f"echo $$ >>{tmp_path}/server; exec sleep 99", f"echo $$ >>{tmp_path}/agents; exit 1") as process:
        eventually("a third agent runs", lambda: len(agents()) > 2)
        assert len(server()) == 1
        os.kill(int(server()[0]), 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(server()[0]), 0)


def test_a_server_that_ends_is_the_containers_end(tmp_path: Path) -> None:
    with pair("exit 3", f"echo $$ >{tmp_path}/agent; exec sleep 99") as process:
        assert process.wait(30) == 3
        assert "the server ended by itself, with 3" in process.communicate()[1]
    if agent := lines(tmp_path / "agent")():
        with pytest.raises(ProcessLookupError):
            os.kill(int(agent[0]), 0)


def test_an_agent_that_refuses_its_configuration_is_the_containers_end() -> None:
    with pair("exec sleep 99", "echo 'pinrail: no such key' >&2; exit 2") as process:
        assert process.wait(30) == 2
        assert process.communicate()[1] == "pinrail: no such key\n"


def test_the_agent_ends_first_and_the_server_when_everybody_has_taken_notice(tmp_path: Path) -> None:
    say = "trap 'echo {0} >>{1}/order; exit' TERM; echo {0} >>{1}/up; while :; do sleep 0.1; done"
    leave = f"echo left >>{tmp_path}/order; echo 0.5"
    with pair(say.format("server", tmp_path), say.format("agent", tmp_path), leave) as process:
        eventually("both run", lambda: len(lines(tmp_path / "up")()) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert lines(tmp_path / "order")() == ["agent", "left", "server"]


# -- the packages -----------------------------------------------------------------------------------------------------


def test_the_images_packages_are_those_of_the_lock() -> None:
    """`make lock` writes both; a version of one that the other does not have was tested by nobody."""
    root = Path(__file__).parents[2]
    pinned = re.compile(r"^[a-z0-9][\w.\-\[\]]*==\S+", re.MULTILINE)
    all_of_them = set(pinned.findall((root / "requirements.lock").read_text()))
    images = set(pinned.findall((root / "compose" / "requirements.lock").read_text()))
    assert len(images) > 30
    assert images <= all_of_them
