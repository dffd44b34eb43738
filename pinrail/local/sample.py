"""The sample service in a local fleet: its trees and configuration, and what ``pinrail up`` does with them."""

from __future__ import annotations

import sys
import tempfile
import tomllib
from pathlib import Path

import httpx
from pydantic import ValidationError

from fleet import proc
from fleet.config import BadConfig, sentence
from fleet.model import ServiceConfig
from fleet.s3 import ObjectStore
from pinrail.errors import CommandError
from pinrail.local import bringup, config
from pinrail.local.progress import Clock, Progress
from pinrail.local.state import FleetState
from pipeline.archive import BadTree
from pipeline.client import BarrierError, Client, OutOfTime, RolloutNow
from pipeline.publish import BuildTaken, publish

SERVICE = "ngapp"
#: Oldest first. Names as commits have them would say nothing to a person.
BUILDS = ("a1", "b2", "c3")
_DEPLOY_SECONDS = 120.0


def source() -> Path:
    """The sample service's folder. Raises CommandError where this is no checkout."""
    folder = Path(__file__).resolve().parents[2] / "samples" / SERVICE
    if not (folder / "make_build.py").exists():
        raise CommandError(f"the sample service is not in {folder}: pinrail up --bare starts a fleet without it")
    return folder


def service_config(fleet: FleetState) -> ServiceConfig:
    """The sample's own configuration, with ports that are free here. Raises BadConfig."""
    path = source() / "service.toml"
    raw = tomllib.loads(path.read_text()) | {"ports": fleet.slots[SERVICE]}
    try:
        return ServiceConfig.model_validate(raw, extra="forbid")
    except ValidationError as e:
        raise BadConfig(f"{path}: {sentence(e)}") from e


def tree(to: Path, build: str) -> Path:
    """Make one build of the sample service in ``to``, which is not there yet. Raises CommandError."""
    done = proc.run((sys.executable, str(source() / "make_build.py"), build, str(to)), deadline=60)
    if done.code:
        raise CommandError(f"the sample service's build {build} could not be made: {done.output.strip()}")
    return to


def client(fleet: FleetState) -> Client:
    """Talks to all replicas as an administrator."""
    return Client([b.url for b in fleet.barrier], fleet.token.admin)


def serve(fleet: FleetState, progress: Progress) -> None:
    """Raises CommandError, Trouble."""
    _publish(fleet, progress)
    with client(fleet) as api:
        try:
            _deploy(fleet, api, progress)
        except BarrierError as e:
            raise CommandError(f"the barrier service refused: {e}") from e
    _answer(fleet, progress)


def _publish(fleet: FleetState, progress: Progress) -> None:
    clock = Clock()
    progress.waiting([f"builds {', '.join(BUILDS)} of {SERVICE}"])
    store, key = ObjectStore(config.s3_config(fleet)), config.signing_key(fleet)
    with tempfile.TemporaryDirectory(prefix="pinrail-") as directory:
        for build in BUILDS:
            try:
                publish(store, tree(Path(directory) / build, build), SERVICE, build, key=key)
            except (BadTree, BuildTaken) as e:
                raise CommandError(f"build {build} of {SERVICE} cannot be published: {e}") from e
    fleet.builds = list(BUILDS)
    fleet.save()
    progress.done(SERVICE, clock(), f"builds {', '.join(BUILDS)} published")


def _deploy(fleet: FleetState, api: Client, progress: Progress) -> None:
    clock = Clock()
    progress.waiting([f"{SERVICE} to be known by all edges and hosts"])
    api.configure(SERVICE, service_config(fleet).model_dump(mode="json"))
    hosts, edges = {h.id for h in fleet.hosts}, {e.id for e in fleet.edges}

    def registered() -> bool:
        return hosts <= {h["name"] for h in api.hosts() if SERVICE in h["services"]} and edges <= {
            e["name"] for e in api.edges() if e["rostered"]
        }

    bringup.wait_for("all edges and hosts register", registered, 30)
    started = api.deploy(SERVICE, BUILDS[0], reason="pinrail up")

    def seen(now: RolloutNow) -> None:
        waits = [str(m) for m in now.missing[:3]]
        progress.waiting([f"{SERVICE} {BUILDS[0]} ({now.state.value}{': ' if waits else ''}{'; '.join(waits)})"])

    try:
        # Where hosts failed it pauses for a person to decide; here nobody will.
        last = api.wait_rollout(
            SERVICE, started.number, seconds=_DEPLOY_SECONDS, on=seen, until=lambda now: now.over or bool(now.failures)
        )
    except OutOfTime as e:
        raise CommandError(f"the first deploy does not finish within {_DEPLOY_SECONDS:g} s: {e}", 3) from e
    if last.state != "switched":
        why = "; ".join(f"{host}: {said}" for host, said in last.failures.items())
        text = last.history[-1].text if last.history else ""
        raise CommandError(f"the first deploy is {last.state.value}: {why or text}")
    progress.done(SERVICE, clock(), f"{BUILDS[0]} deployed")


def _answer(fleet: FleetState, progress: Progress) -> None:
    """Every edge gives the page, as a browser would ask for it."""
    clock = Clock()
    said: dict[str, str] = {}

    def all_answer() -> bool:
        with httpx.Client(trust_env=False, timeout=5, headers={"Accept": "text/html"}) as browser:
            for edge in fleet.edges:
                try:
                    answer = browser.get(f"{edge.url}/")
                except httpx.HTTPError as e:
                    said[edge.id] = str(e)
                    continue
                if answer.status_code == 200:
                    said.pop(edge.id, None)
                else:
                    said[edge.id] = f"{answer.status_code} {answer.reason_phrase}"
        return not said

    try:
        bringup.wait_for("", all_answer, 20)
    except CommandError as e:
        words = "; ".join(f"{edge}: {what}" for edge, what in said.items())
        raise CommandError(f"{SERVICE} is deployed, but not every edge gives its page: {words}", 3) from e
    progress.done("edges", clock(), f"{len(fleet.edges)} answer")
