"""A fleet that cannot come up: one clear sentence, exit code 1, nothing left running, the logs where it says."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pinrail.cli import app
from pinrail.local import config, ports, state, supervisord, tools, zookeeper
from pinrail.local.programs import Program
from pinrail.local.state import FleetState
from tests.local.conftest import left_of, run


def up(directory: Path, *more: str) -> Result:
    """In this process, so that a test can spoil something first."""
    return CliRunner().invoke(app, ["up", "--bare", "--edges", "1", "--hosts", "1", "--dir", str(directory), *more])


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, argv: tuple[str, ...] | None = None, **environment: str) -> None:
    """The fleet's program ``name`` gets another command or further environment."""
    honest = config.write

    def write(fleet: FleetState) -> list[Program]:
        return [
            dataclasses.replace(p, argv=argv or p.argv, environment={**p.environment, **environment})
            if p.name == name
            else p
            for p in honest(fleet)
        ]

    monkeypatch.setattr(config, "write", write)


def test_without_zookeeper_it_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zookeeper, "JAR", directory / "zookeeper.jar")
    result = up(directory)
    assert result.exit_code == 1
    assert result.stderr.startswith("pinrail: ZooKeeper is not installed: apt-get install libzookeeper-java")
    assert result.stderr.count("\n") == 1
    assert not directory.exists()


def test_without_varnish_or_a_compiler_it_says_what_to_install(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("java", "nginx"):
        (programs / name).symlink_to(tools.find(name) or "")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(tools, "_SYSTEM", ())
    result = up(directory)
    assert result.exit_code == 1
    assert "varnishd is not installed: apt-get install varnish" in result.stderr
    assert "needs a C compiler: apt-get install tcc" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not directory.exists()
    seen = CliRunner().invoke(app, ["doctor"])
    assert seen.exit_code == 1
    assert "apt-get install varnish" in seen.stdout


def test_doctor_is_content_here() -> None:
    seen = CliRunner().invoke(app, ["doctor", "--json"])
    assert seen.exit_code == 0
    assert '"varnishd"' in seen.stdout


def test_a_taken_port_is_named_with_its_holder(directory: Path) -> None:
    wanted = ports.choose(directory, edges=1, hosts=1, barriers=2).edges[0].listen
    with socket.create_server(("127.0.0.1", wanted)):
        result = up(directory, "--port", str(wanted))
    assert result.exit_code == 1
    assert f"port {wanted} on 127.0.0.1 is taken by" in result.stderr
    assert f"(process {os.getpid()})" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken_while_it_starts_is_named_too(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ports.choose(directory, edges=1, hosts=1, barriers=2)
    # What `ports` saw free is taken by the time that S3 wants it.
    monkeypatch.setattr(ports, "is_free", lambda *_: True)
    with socket.create_server(("127.0.0.1", chosen.s3)):
        result = up(directory)
    assert result.exit_code == 1
    assert f"s3 does not stay up: port {chosen.s3} is taken by" in result.stderr
    assert left_of(directory) == []


def test_an_object_store_that_refuses_the_key_is_said_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "s3", AWS_SECRET_ACCESS_KEY="another")
    result = up(directory)
    assert result.exit_code == 1
    assert "s3 is not usable" in result.stderr
    assert "the secret key is not the right one" in result.stderr
    assert left_of(directory) == []


def test_a_part_that_dies_is_named_with_its_last_words_and_the_logs_stay(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "zookeeper", ("sh", "-c", "echo the disk is on fire; exit 3"))
    result = up(directory)
    assert result.exit_code == 1
    assert "zookeeper does not stay up" in result.stderr
    assert "the disk is on fire" in result.stderr
    assert str(directory / "logs") in result.stderr
    assert "the disk is on fire" in (directory / "logs" / "zookeeper.log").read_text()
    assert not (directory / state.FILE).exists()
    assert not (directory / "data").exists()
    assert left_of(directory) == []


def test_a_part_that_runs_for_a_moment_and_dies_again_and_again_is_noticed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "zookeeper", ("sh", "-c", "sleep 1.3; echo and again"))
    result = up(directory)
    assert result.exit_code == 1
    assert "zookeeper does not stay up" in result.stderr
    assert "and again" in result.stderr
    assert left_of(directory) == []


def test_a_supervisord_that_cannot_start_is_said(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisord, "render", lambda *_, **__: "[supervisord]\nlogfile=/proc/none/x\nnodaemon=true\n")
    result = up(directory)
    assert result.exit_code == 1
    assert "supervisord ended at once" in result.stderr
    assert left_of(directory) == []


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_of_up_cleans_up(
    directory: Path, start: Callable[..., subprocess.Popen[str]], delay: float, number: signal.Signals
) -> None:
    p = start("up", "--dir", directory)
    deadline = time.monotonic() + 20
    while not (directory / state.FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)  # the moment is what is tested
    p.send_signal(number)
    _, said = p.communicate(timeout=40)
    assert p.returncode == 128 + number, said
    assert "everything was stopped" in said
    assert left_of(directory) == []
    assert not directory.exists()


def test_what_a_killed_up_leaves_is_ended_by_down(directory: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    p = start("up", "--dir", directory)
    assert p.stderr is not None
    for line in p.stderr:
        if "zookeeper" in line:
            break
    p.kill()
    p.wait(10)
    assert left_of(directory)
    assert run("down", "--dir", directory).returncode == 0
    assert left_of(directory) == []
    assert not directory.exists()


def test_commands_without_a_fleet_say_so(directory: Path) -> None:
    for words in (["status"], ["stop", "edge-1"], ["start", "edge-1"]):
        result = CliRunner().invoke(app, [*words, "--dir", str(directory)])
        assert result.exit_code == 1
        assert f"there is no fleet in {directory}" in result.stderr
    assert CliRunner().invoke(app, ["down", "--dir", str(directory)]).exit_code == 0


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = up(tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "choose another with --dir" in result.stderr


def test_a_record_from_before_a_reboot_is_explained_and_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "zookeeper", ("false",))
    directory.mkdir()
    fleet = state.FleetState(
        id="0-0",
        directory=directory,
        run=directory / "run",
        boot="another boot",
        phase="running",
        # This very process has that number now; it must survive.
        supervisor=state.SupervisorState(socket=directory / "run" / "s", pid=os.getpid(), started=1),
        s3_credentials=directory / "c",
        zookeeper=state.ZooKeeperState(connect="127.0.0.1:1/pinrail"),
        token=state.Tokens(read="r", deploy="d", admin="a"),
    )
    fleet.save()
    assert "no longer runs" in CliRunner().invoke(app, ["status", "--dir", str(directory)]).stderr
    assert "the machine was restarted since" in up(directory).stderr
    shutil.rmtree(directory)
