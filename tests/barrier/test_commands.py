"""The real processes: two replicas of the barrier service and the command; thin edges and hosts behind them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from barrier.config import BarrierConfig
from fleet import config
from fleet.config import S3Config
from fleet.files import write_atomic
from fleet.model import Manifest
from fleet.s3 import ObjectStore, manifest_key
from pinrail.cli import app
from pinrail.local import toml
from pinrail.local.ports import free_port
from pipeline.client import BarrierAway, BarrierError, Client
from tests.barrier.conftest import ACCESS, Fleet
from tests.barrier.http import DIGEST, TOKENS, write_tokens
from tests.conftest import eventually

PINRAIL = [sys.executable, "-m", "pinrail"]
CONFIG = 'stall_seconds = 0.3\n[waves]\nconcurrency = 2\n[[match]]\nhost = "shop.example"\n'


class Service:
    """One ``pinrail barrier run``."""

    def __init__(self, name: str, directory: Path, zookeeper: str, s3: S3Config) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        tokens = directory / "tokens.toml"
        write_tokens(tokens, TOKENS)
        access = directory / "zookeeper-barrier.toml"
        write_atomic(access, toml.of_model(ACCESS["barrier"]), 0o600)
        self.file = directory / f"{name}.toml"
        self.file.write_text(
            f'name = "{name}"\nzookeeper = "{zookeeper}"\nzookeeper_access = "{access}"\n'
            f'listen = "127.0.0.1:{self.port}"\n'
            f'tokens = "{tokens}"\nsession_seconds = 2.0\n'
            f'[s3]\nendpoint = "{s3.endpoint}"\nbucket = "{s3.bucket}"\ncredentials = "{s3.credentials}"\n'
        )
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*PINRAIL, "barrier", "run", "--config", str(self.file)], stdout=log, stderr=log
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(15)


@pytest.fixture
def services(tmp_path: Path, zk_address: str, s3_config: S3Config) -> Iterator[list[Service]]:
    store = ObjectStore(s3_config)
    for build in "ABC":
        manifest = Manifest(service="shop", build=build, digest=DIGEST, size=1, unpacked=1, files=1)
        store.put_new(manifest_key("shop", build), manifest.encode(), "application/json")
    made = [Service(f"barrier-{n}", tmp_path, zk_address, s3_config) for n in (1, 2)]
    for service in made:
        with Client([service.url], TOKENS["read"]) as client:
            eventually(f"{service.log} to be ready", lambda c=client: ready(c), 30)  # type: ignore[misc]
    yield made
    for service in made:
        if service.process.poll() is None:
            service.stop(signal.SIGKILL)


def ready(client: Client) -> bool:
    try:
        return bool(client.ready())
    except (BarrierAway, BarrierError):
        return False


class Command:
    """Runs ``pinrail`` in this process; the exit code must be the one that is said."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services

    def __call__(self, *argv: str, code: int = 0, role: str = "deploy", **env: str) -> Result:
        urls = ",".join(s.url for s in self.services)
        environment = {"PINRAIL_URL": urls, "PINRAIL_TOKEN": TOKENS[role], **env}
        done = CliRunner().invoke(app, argv, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, f"{argv}: {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return done


def test_a_deploy_job_from_the_first_command_to_the_last(services: list[Service], fleet: Fleet, tmp_path: Path) -> None:
    pinrail = Command(services)
    file = tmp_path / "shop.toml"
    file.write_text(CONFIG)
    pinrail("config", "set", "shop", str(file), role="admin")
    shown = json.loads(pinrail("config", "get", "shop").stdout)
    assert (shown["match"][0]["host"], shown["health"]["floor"]) == ("shop.example", 75)
    edge = fleet.edge("edge-1")
    for name in ("host-1", "host-2"):
        fleet.host(name)

    said = pinrail("deploy", "shop", "A", "--wait", "--reason", "first").stderr.splitlines()
    assert said[0].startswith("rollout 1  epoch 1  nothing is served yet: install A")
    assert "every edge has switched to A" in said[-1]
    rollout = json.loads(pinrail("deploy", "shop", "B", "--wait", "--json").stdout)
    assert (rollout["state"], rollout["done"], rollout["build"]) == ("switched", True, "B")

    # the leader dies in the middle; the other one finishes
    edge.drains = False
    begun = json.loads(pinrail("deploy", "shop", "C", "--json").stdout)
    assert begun["number"] == 3
    late = pinrail("rollout", "watch", "shop", "--timeout", "0.5", code=3)
    assert "still withdrawing, waiting for edge-1: requests left" in late.stderr
    assert "edge-1: requests left" in pinrail("rollout", "show", "shop").stdout
    assert "409" not in (busy := pinrail("deploy", "shop", "A", code=1)).stderr
    assert "rollout 3 of shop is active" in busy.stderr
    leader = next(s for s in services if f'"leader":"{s.file.stem}"' in http_text(s))
    leader.stop(signal.SIGKILL)
    edge.drains = True
    edge.wake()
    pinrail("rollout", "watch", "shop", "3", "--timeout", "30")

    back = pinrail("rollback", "shop", "--reason", "slow")
    assert "rollback: B is the default again: slow (asked by deployer)" in back.stderr
    assert [r["state"] for r in json.loads(pinrail("rollout", "list", "shop", "--json").stdout)] == [
        "rolled_back",
        "switched",
        "switched",
    ]
    assert "rolled_back" in pinrail("rollout", "list", "shop").stdout
    assert "edge-1" in pinrail("edges").stdout
    edge.error = "a hook of [its own] failed :fire:"
    edge.wake()
    eventually("it is shown", lambda: edge.error in pinrail("edges", COLUMNS="200").stdout)
    assert "host-2" in pinrail("hosts").stdout
    edge.stop()
    fleet.threads.remove(edge)
    assert json.loads(pinrail("evict", "edge-1", "--reason", "sold", "--json").stdout)["rostered"]
    assert json.loads(pinrail("edges", "--json").stdout) == []
    newest, *older = json.loads(pinrail("audit", "--json").stdout)
    assert (newest["action"], newest["edge"], newest["why"], newest["by"]) == ("evict", "edge-1", "sold", "deployer")
    assert [e["action"] for e in older] == ["rollback", "deploy", "deploy", "deploy", "configure"]
    assert "rollback rollout 3 of shop" in pinrail("audit", "shop", "--last", "1", COLUMNS="200").stdout
    assert [s.stop() for s in services if s is not leader] == [0]


def test_what_a_host_quotes_is_shown_as_it_is(services: list[Service], fleet: Fleet, tmp_path: Path) -> None:
    """Logs are full of brackets, which to rich are markup."""
    pinrail = Command(services)
    assert "`pinrail host run`" in pinrail("hosts").stderr
    file = tmp_path / "shop.toml"
    file.write_text(CONFIG)
    pinrail("config", "set", "shop", str(file), role="admin")
    fleet.edge("edge-1")
    fleet.host("host-1").bad["A"] = words = "its log: [/etc/x] [emerg] bind()"
    failed = pinrail("deploy", "shop", "A", "--wait", "--reason", "[/b] why", code=1)
    assert f"pinrail: rollout 1 of shop to A is paused: hosts failed: host-1: {words}; `pinrail" in failed.stderr
    assert words in pinrail("hosts", COLUMNS="200").stdout
    assert words in pinrail("rollout", "show", "shop").stdout
    assert "[/b] why" in pinrail("rollout", "list", "shop", COLUMNS="200").stdout
    pinrail("rollout", "abort", "shop", "--wait")


def test_a_job_that_compares_the_versions_drives_the_ramp(
    services: list[Service], fleet: Fleet, tmp_path: Path
) -> None:
    pinrail = Command(services)
    file = tmp_path / "shop.toml"
    file.write_text(CONFIG)
    pinrail("config", "set", "shop", str(file), role="admin")
    fleet.edge("edge-1")
    fleet.host("host-1")
    pinrail("deploy", "shop", "A", "--wait")
    verdict = ("rollout", "verdict", "shop")
    assert "roll it back instead" in pinrail(*verdict, "pass", code=1).stderr
    pinrail("deploy", "shop", "B", "--ramp", "10,50", "--hold", "verdict")

    def held(percent: int) -> bool:
        shown = json.loads(pinrail("rollout", "show", "shop", "--json").stdout)
        return [m["who"] for m in shown["missing"]] == ["ramp"] and f"held at {percent} %" in shown["missing"][0]["why"]

    eventually("10 % waits for a verdict", lambda: held(10), 20)
    assert (
        pinrail("rollout", "watch", "shop", "--timeout", "0.5", code=3).stderr.count("until a verdict on it comes") == 1
    )
    said = json.loads(pinrail(*verdict, "undecided", "--reason", "too few requests", "--json").stdout)
    assert said["history"][-1]["text"] == "verdict undecided: too few requests (said by deployer)"
    assert "rollout 2 is asked to pause: `pinrail rollout watch shop 2`" in pinrail("rollout", "pause", "shop").stderr
    eventually("it is paused", lambda: "paused ..." in pinrail("rollout", "show", "shop").stdout, 20)
    pinrail("rollout", "resume", "shop")
    eventually("10 % waits again", lambda: held(10), 20)
    pinrail(*verdict, "pass", "2", "--percent", "10")
    eventually("50 % waits for a verdict", lambda: held(50), 20)
    assert "at 50 %" in pinrail(*verdict, "pass", "--percent", "10", code=1).stderr
    assert "this needs the role deploy" in pinrail(*verdict, "pass", role="read", code=2).stderr
    pinrail(*verdict, "perhaps", code=2)
    assert "rollout 2 is given the verdict fail" in pinrail(*verdict, "fail", "--reason", "errors").stderr
    ended = pinrail("rollout", "watch", "shop", "--timeout", "30", code=1).stderr
    assert "rollout 2 of shop to B is aborted: B stays" in ended
    shown = json.loads(pinrail("rollout", "show", "shop", "--json").stdout)
    assert (shown["state"], shown["done"]) == ("aborted", True)
    assert any("verdict fail: errors" in event["text"] for event in shown["history"])


def http_text(service: Service) -> str:
    with Client([service.url], TOKENS["read"]) as client:
        return json.dumps(client.ready(), separators=(",", ":"))


def test_what_was_typed_wrong_is_said_in_one_line(services: list[Service], tmp_path: Path) -> None:
    pinrail = Command(services)
    file = tmp_path / "shop.toml"
    file.write_text(CONFIG)
    pinrail("config", "set", "shop", str(file), role="admin")
    for argv, said in (
        (("deploy", "shop", "Z"), "shop has no build Z: there are A, B, C"),
        (("deploy", "shopp", "A"), "there is no service 'shopp'"),
        (("deploy", "shop", "a/b"), "'a/b' is not a build name"),
        (("deploy", "shop", "A", "--ramp", "some"), "is not a list of percentages"),
        (("deploy", "shop", "A", "--ramp", "10,1"), "the percentages of a ramp must grow"),
        (("deploy", "shop", "A", "--key", ""), "--key is empty"),
        (("evict", "edge-9", "--reason", "x"), "there is no edge 'edge-9'"),
        (("config", "set", "shop", str(file)), "this needs the role admin"),
        (("config", "set", "shop", "/nowhere.toml"), "cannot read /nowhere.toml: No such file"),
    ):
        stderr = pinrail(*argv, code=2).stderr
        assert said in stderr
        assert len(stderr.splitlines()) == 1, stderr
    number = " ".join(pinrail("rollout", "watch", "shop", "x", code=2, COLUMNS="200").stderr.split())
    assert "'x' is no rollout's number: `pinrail rollout list SERVICE` shows them" in number
    assert "has had no rollout yet" in pinrail("rollout", "show", "shop", code=1).stderr
    assert "no rollout that could be rolled back" in pinrail("rollback", "shop", code=1).stderr
    assert "not known here" in pinrail("edges", code=2, PINRAIL_TOKEN="guess").stderr
    assert "$PINRAIL_TOKEN is not" in pinrail("edges", code=2, PINRAIL_TOKEN="").stderr
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "does not answer" in pinrail("edges", code=1, PINRAIL_URL=nobody).stderr
    none = pinrail("edges", code=2, PINRAIL_URL="", PINRAIL_DIR=str(tmp_path / "none"))
    assert "start a local fleet with `pinrail up`" in none.stderr


def test_a_replica_that_cannot_start_says_why(services: list[Service], tmp_path: Path) -> None:
    run = [*PINRAIL, "barrier", "run", "--config"]
    taken = subprocess.run([*run, str(services[0].file)], capture_output=True, text=True, timeout=30)
    assert taken.returncode == 1
    assert "cannot listen on 127.0.0.1" in taken.stderr.splitlines()[-1]
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\nzookeeperr = "y"\n')
    done = subprocess.run([*run, str(bad)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "zookeeperr: is not a known key" in done.stderr) == (2, True)


def test_the_annotated_configuration_is_a_valid_one() -> None:
    loaded = config.load(Path(__file__).parents[2] / "docs" / "config" / "barrier.toml", BarrierConfig)
    assert (loaded.name, loaded.s3.bucket) == ("barrier-1", "pinrail")
