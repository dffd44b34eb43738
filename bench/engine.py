"""The Docker engine as tests and measurements use it: images, a project for each fleet, its end."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import ipaddress
import json
import os
import random
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pinrail.local.ports import free_port

ROOT = Path(__file__).parents[1]
FILE = ROOT / "compose" / "compose.yaml"
TARGETS = (
    *("tools", "barrier", "zookeeper", "s3", "edge-varnish", "edge-nginx", "host"),
    *("haproxy", "prometheus", "alertmanager"),
)
#: Of this checkout: another one's tests may run on the same engine.
TAG = f"test-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
IMAGES = "pinrail"
#: Docker's client from this version on has BuildKit in a plugin alone.
_PLUGIN_SINCE = 23
#: Builds that BuildKit is asked for at the same time; each is a download half of its time.
_AT_ONCE = 3


def run(
    *argv: str | Path,
    check: bool = True,
    seconds: float = 120,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(a) for a in argv],
        capture_output=True,
        text=True,
        timeout=seconds,
        input=stdin,
        env={**os.environ, **(environment or {})},
    )
    if check and done.returncode:
        said = f"{done.stdout}{done.stderr}"[-3000:]
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{said}")
    return done


def docker(*words: str | Path, check: bool = True, seconds: float = 120) -> str:
    return run("docker", *words, check=check, seconds=seconds).stdout.strip()


@functools.cache
def compose_command() -> tuple[str, ...] | None:
    for words in (("docker", "compose"), ("docker-compose",)):
        with contextlib.suppress(OSError):
            if run(*words, "version", check=False).returncode == 0:
                return words
    return None


@functools.cache
def why_not() -> str:
    """Why nothing of this can be tried here; nothing where it can."""
    if shutil.which("docker") is None or run("docker", "version", check=False).returncode:
        return "no Docker engine answers"
    if compose_command() is None:
        return "neither `docker compose` nor docker-compose is installed"
    return ""


def image(target: str, version: str = TAG) -> str:
    return f"{IMAGES}/{target}:{version}"


def build(targets: Sequence[str] = TARGETS, version: str = TAG) -> None:
    """The images, under that version. One caller at a time: what is cached takes a second."""
    with (Path(tempfile.gettempdir()) / f"pinrail-{TAG}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(ROOT / "compose" / "base-image", seconds=600)
        client = _builder()
        first, *others = targets  # it has what all share
        _build(client, first, version)
        with ThreadPoolExecutor(_AT_ONCE if client else 1) as pool:
            list(pool.map(lambda target: _build(client, target, version), others))


def _build(client: Path | None, target: str, version: str) -> None:
    words = ("--build-arg", f"VERSION={version}", "-f", ROOT / "compose" / "Dockerfile", "--target", target)
    told = {"DOCKER_BUILDKIT": "1" if client else "0"}
    name = image(target, version)
    run(client or "docker", "build", "-q", *words, "-t", name, ROOT, seconds=900, environment=told)


@functools.cache
def _builder() -> Path | None:
    """A client that can ask for BuildKit: older ones have it in them, newer ones in a plugin. None where there is none:
    the classic builder makes a layer of every line."""
    for place in dict.fromkeys(os.environ.get("PATH", os.defpath).split(os.pathsep)):
        client = Path(place) / "docker"
        if client.is_file() and os.access(client, os.X_OK) and _has_buildkit(client):
            return client
    return None


def _has_buildkit(client: Path) -> bool:
    if run(client, "buildx", "version", check=False).returncode == 0:
        return True
    found = re.search(r"version (\d+)\.", run(client, "--version", check=False).stdout)
    return found is not None and int(found[1]) < _PLUGIN_SINCE


def free_net() -> str:
    """The first two numbers of addresses that nothing on this machine has."""
    taken = [ipaddress.ip_network(line.split()[0], strict=False) for line in _routes() if line[0].isdigit()]
    for second in random.sample(range(100, 200), 100):  # two that choose at once choose apart
        net = ipaddress.ip_network(f"10.{second}.0.0/16")
        if not any(net.overlaps(other) for other in taken if other.prefixlen > 8):
            return f"10.{second}"
    raise AssertionError("no network in 10.100 to 10.199 is free")


def environment() -> dict[str, str]:
    """Ports and addresses that nothing else here has, and clocks for tests."""
    ports = ("PORT", "BARRIER_1_PORT", "BARRIER_2_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")
    return {
        "PINRAIL_NET": free_net(),
        "PINRAIL_SESSION_SECONDS": "4",
        "PINRAIL_LEAVE_SECONDS": "2",
        **{f"PINRAIL_{p}": str(free_port()) for p in ports},
    }


def _routes() -> list[str]:
    return [line for line in run("ip", "-4", "route").stdout.splitlines() if line.strip()]


class Project:
    """One compose project, with its own environment."""

    def __init__(self, environment: Mapping[str, str], files: Sequence[Path] = (FILE,)) -> None:
        self.name = f"pinrailtest{secrets.token_hex(3)}"
        self.environment = {
            "PINRAIL_IMAGES": IMAGES,
            "PINRAIL_TAG": TAG,
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_HTTP_TIMEOUT": "300",
            **environment,
        }
        self._files = [word for f in files for word in ("-f", str(f))]

    def __call__(self, *words: str, check: bool = True, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        argv = (*(compose_command() or ()), *self._files, "--project-directory", str(FILE.parent), *words)
        return run(*argv, check=check, seconds=seconds, environment=self.environment)

    def down(self) -> None:
        """Nothing of it is left: containers, networks, volumes; whatever went wrong before."""
        label = f"label=com.docker.compose.project={self.name}"
        for container in docker("ps", "-aq", "--filter", label).split():
            docker("unpause", container, check=False)
            docker("rm", "-f", "-v", container, check=False)
        self("down", "-v", "--remove-orphans", "-t", "1", check=False)
        for kind in ("network", "volume"):
            for left in docker(kind, "ls", "-q", "--filter", label).split():
                docker(kind, "rm", left, check=False)

    def left(self) -> list[str]:
        """What there is of it."""
        label = f"label=com.docker.compose.project={self.name}"
        found = [docker(kind, "ls", "-q", "--filter", label) for kind in ("network", "volume")]
        return [w for text in (*found, docker("ps", "-aq", "--filter", label)) for w in text.split()]

    def container(self, service: str) -> str:
        words = [f"label=com.docker.compose.{k}={v}" for k, v in (("project", self.name), ("service", service))]
        found = docker("ps", "-aq", "--filter", words[0], "--filter", words[1]).split()
        if len(found) != 1:
            raise AssertionError(f"{len(found)} containers of {service}")
        return found[0]

    def states(self) -> dict[str, str]:
        """Service -> ``healthy``, ``exited 2`` and so on, as ``compose ps`` shows it."""
        label = f"label=com.docker.compose.project={self.name}"
        ids = docker("ps", "-aq", "--filter", label).split()
        seen: list[Any] = json.loads(docker("inspect", *ids)) if ids else []
        found = {}
        for c in seen:
            state, labels = c["State"], c["Config"]["Labels"]
            if labels.get("com.docker.compose.oneoff") == "True":
                continue
            health = state.get("Health", {}).get("Status")
            running = health or state["Status"]
            ended = f"exited {state['ExitCode']}"
            found[labels["com.docker.compose.service"]] = running if state["Running"] else ended
        return found

    def green(self, seconds: float = 180, *, but: Sequence[str] = ("secrets",)) -> float:
        """Until every container is healthy; the seconds that it took."""
        began = time.monotonic()
        while True:
            states = {s: said for s, said in self.states().items() if s not in but}
            waiting = {s: said for s, said in states.items() if said != "healthy"}
            if states and not waiting:
                return time.monotonic() - began
            ended = [s for s, said in waiting.items() if said.startswith("exited")]
            if ended or time.monotonic() - began > seconds:
                logs = "\n".join(self.logs(s) for s in list(waiting)[:3])
                raise AssertionError(f"not green after {seconds:g} s: {waiting}\n{logs}")
            time.sleep(0.5)

    def logs(self, service: str, lines: int = 15) -> str:
        done = run("docker", "logs", "--tail", str(lines), self.container(service), check=False)
        return f"--- {service}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def project(environment: Mapping[str, str], files: Sequence[Path] = (FILE,)) -> Iterator[Project]:
    made = Project(environment, files)
    try:
        yield made
    finally:
        made.down()
