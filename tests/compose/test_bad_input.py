"""What a container says when it cannot start: one line, and a code that is not 0; compose shows which it was."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from bench import engine
from bench.engine import docker, environment, image, run

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("images")]

WHERE = {"ZOOKEEPER": "zk-1:2181/pinrail", "S3": "http://s3:8333", "NAME": "zk-1", "ADDRESS": "10.0.0.1"}
PARTS = ("edge-varnish", "host", "barrier", "zookeeper")
STORING = {"edge-nginx": "edge", "host": "host", "zookeeper": "zookeeper", "s3": "s3"}


def told(**others: str) -> list[str]:
    return [w for name, value in (WHERE | others).items() for w in ("-e", f"PINRAIL_{name}={value}")]


def refuses(part: str, *words: str) -> str:
    """Its one line; it ends with the code of usage."""
    done = run("docker", "run", "--rm", *words, image(part), check=False, seconds=120)
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 2, (done.returncode, lines)
    assert len(lines) == 1, lines
    assert lines[0].startswith("pinrail: ")
    return lines[0]


@pytest.fixture(scope="module")
def secrets(images: None) -> Iterator[list[str]]:
    """Volumes with the secrets of every kind, as words of ``docker run``."""
    names = {kind: docker("volume", "create") for kind in ("barrier", "edge", "host", "s3", "tools")}
    words = [w for kind, name in names.items() for w in ("-v", f"{name}:/secrets/{kind}")]
    try:
        fleet = told(EDGES="edge-1", HOSTS="host-1=10.0.0.1", BARRIERS="barrier-1")
        docker("run", "--rm", *words, *fleet, image("tools"), "container", "secrets")
        yield words
    finally:
        docker("volume", "rm", "-f", *names.values())


@contextlib.contextmanager
def full() -> Iterator[str]:
    """A volume that takes 64 KiB."""
    options = ("type=tmpfs", "device=tmpfs", "o=size=64k,mode=1777")
    name = docker("volume", "create", *(w for o in options for w in ("--opt", o)))
    try:
        yield name
    finally:
        docker("volume", "rm", "-f", name)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_variable(part: str) -> None:
    assert "PINRAIL_ZOOKEEPER is not set" in refuses(part, "-e", "PINRAIL_NAME=it")


def test_a_missing_variable_of_the_load_balancer() -> None:
    assert "EDGE_2 is not set; EDGE_3 is not set" in refuses("haproxy", "-e", "EDGE_1=10.0.0.1")


def test_secrets_that_are_not_mounted() -> None:
    assert "/secrets/barrier/zookeeper.toml is not there" in refuses("barrier", *told())


@pytest.mark.parametrize("part", STORING)
def test_a_full_volume(part: str, secrets: list[str]) -> None:
    with full() as volume:
        said = refuses(part, *told(), *secrets, "-v", f"{volume}:/var/lib/pinrail:nocopy")
    assert f"the volume at /var/lib/pinrail/{STORING[part]} cannot be written: No space left on device" in said


@pytest.mark.parametrize("part", ["prometheus", "alertmanager"])
def test_a_full_volume_of_what_watches(part: str) -> None:
    with full() as volume:
        said = refuses(part, "-v", f"{volume}:/{part}:nocopy")
    assert f"the volume at /{part} cannot be written: No space left on device" in said


@pytest.mark.parametrize(("part", "port"), [("barrier", 8300), ("prometheus", 9090)])
def test_a_port_that_is_taken_inside(part: str, port: int) -> None:
    box = docker("run", "-d", "--entrypoint", "python", image("tools"), "-m", "http.server", str(port))
    try:
        docker("exec", box, "bash", "-c", f"until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.1; done")
        assert f"port {port} is taken" in refuses(part, *told(), "--network", f"container:{box}")
    finally:
        docker("rm", "-f", box)


def test_a_port_of_this_machine_that_is_taken() -> None:
    with socket.socket() as s, engine.project(environment()) as project:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = str(s.getsockname()[1])
        project.environment["PINRAIL_PORT"] = port
        done = project("up", "-d", "--no-deps", "balancer", check=False)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert port in said
        assert "balancer" in said


def test_compose_shows_which_part_it_was() -> None:
    told = environment() | {"PINRAIL_LEAVE_SECONDS": "a while", "PINRAIL_RESTART": "no"}
    with engine.project(told) as project:
        project("up", "-d", "--no-deps", "edge-1", "zk-1")
        docker("wait", project.container("edge-1"), seconds=60)
        assert project.states()["edge-1"] == "exited 2"
        assert not project.states()["zk-1"].startswith("exited")
        shown = project("ps", "-a").stdout
        # Names are broken in two where the screen is narrow.
        assert re.search(r"edge-.*Exit(ed \()? ?2\b", shown), shown
        said = project("logs", "--no-color", "edge-1").stdout
        assert "PINRAIL_LEAVE_SECONDS: " in said
