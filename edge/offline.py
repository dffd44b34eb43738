"""What an edge would load, without an edge: rendered from files or from ZooKeeper, written to files, compiled.

Touches no running Varnish, and nothing in ZooKeeper.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge import render, server
from edge.members import Host, Sets, address
from edge.own import Own
from edge.render import Rendered, Route
from edge.view import View
from fleet import proc
from fleet.access import Access
from fleet.config import BadConfig, sentence
from fleet.files import write_atomic
from fleet.model import Plan, ServiceConfig
from fleet.names import BadName, build_name, service_name
from fleet.zk import ZooKeeper
from vcl.own import located


class Invalid(Exception):
    """What was given can be read, and no edge would load it; the message says why."""


@dataclass(frozen=True)
class Given:
    """One service as it would be rendered."""

    service: str
    config: ServiceConfig
    plan: Plan
    sets: Sets
    own: str = ""


def from_files(service: str, plan: Path, members: Path, config: Path | None, own: Path | None) -> list[Given]:
    """Raises BadConfig where a file cannot be read, BadName, and Invalid with the file and what is wrong in it."""
    service_name(service)
    try:
        routing = Plan.model_validate(_parsed(plan))
    except ValidationError as e:
        raise Invalid(f"{plan}: {sentence(e)}") from e
    try:
        settings = ServiceConfig.model_validate(_parsed(config) if config else {}, extra="forbid")
    except ValidationError as e:
        raise Invalid(f"{config}: {sentence(e)}") from e
    sets: dict[str, tuple[Host, ...]] = {}
    for v, hosts in _parsed(members).items():
        try:
            sets[build_name(v)] = tuple(_host(members, h) for h in hosts)
        except BadName as e:
            raise Invalid(f"{members}: {e}") from e
    return [Given(service, settings, routing, sets, Own(own).read(service))]


def from_zookeeper(address: str, access: Access | None, own: Path | None) -> tuple[list[Given], list[str]]:
    """Every service as an edge would read it now, and what of it an edge would not believe. Raises ZooKeeperTrouble."""
    zk = ZooKeeper(address, wake=lambda *_: None, access=access)
    try:
        zk.start()
        seen = View(zk).services()
    finally:
        zk.close()
    found = [
        Given(name, s.config or ServiceConfig(), s.plan or Plan(), s.sets, Own(own).read(name))
        for name, s in seen.items()
        if "plan" not in s.faults and "config" not in s.faults
    ]
    return found, [text for s in seen.values() for text in s.faults.values()]


def vcl(given: Sequence[Given], to: Path) -> dict[str, str]:
    """File name -> what a Varnish would load, and ``load.cli``, which makes it load and use them from ``to``.

    The same input gives the same names and texts.
    """
    found: dict[str, Rendered] = {}
    for g in given:
        found[f"{g.service}.current.vcl"] = render.service(g.service, g.config, g.plan, g.sets, g.own)
        if g.plan.staged:
            found[f"{g.service}.staged.vcl"] = render.service(g.service, g.config, g.plan.committed(), g.sets, g.own)
    found["root.vcl"] = render.root([Route(g.service, g.config.match) for g in given], None)
    return {name: r.text for name, r in found.items()} | {"load.cli": _commands(found, to.absolute())}


def _commands(vcls: Mapping[str, Rendered], to: Path) -> str:
    """Services before the root that hands over to them. A name is a hash: what is loaded already is the same."""
    lines = []
    for name, r in vcls.items():
        lines.append(f'vcl.load {r.name} "{to / name}" warm')
        if name.endswith(".current.vcl"):
            lines.append(f"vcl.label {render.label(render.service_of(r.name))} {r.name}")
    return "\n".join([*lines, f"vcl.use {vcls['root.vcl'].name}"]) + "\n"


def write(texts: Mapping[str, str], to: Path) -> list[Path]:
    """The VCL of services that are gone goes too."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomic(to / name, text)
        for old in (*to.glob("*.current.vcl"), *to.glob("*.staged.vcl")):
            if old.name not in texts:
                old.unlink()
    except OSError as e:
        raise BadConfig(f"cannot write to {to}: {e.strerror}") from e
    return [to / name for name in texts]


def compile_all(vcls: Mapping[str, str], program: str) -> list[tuple[str, str | None]]:
    """File name -> None where varnishd compiles it, else what it said. The root is skipped: it needs loaded labels."""
    results: list[tuple[str, str | None]] = []
    with tempfile.TemporaryDirectory(prefix="pinrail-check-") as directory:
        for name, text in vcls.items():
            if name in ("root.vcl", "load.cli"):
                continue
            path = Path(directory) / name
            path.write_text(text)
            line = [program, "-C", "-j", "none", "-n", f"{directory}/work", "-f", str(path)]
            if server.tcc_is_here():
                line += ["-p", f"cc_command={server.TCC}"]
            try:
                result = proc.run(line, deadline=300)
            except FileNotFoundError as e:
                raise BadConfig(f"{program} is not installed: apt-get install varnish") from e
            results.append((name, located(result.output, text) or f"exit {result.code}" if result.code else None))
    return results


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        parsed = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as e:
        raise BadConfig(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:
        raise Invalid(f"{path} is neither JSON nor TOML: {e}") from e
    if not isinstance(parsed, dict):
        raise Invalid(f"{path} must hold one object")
    return parsed


def _host(path: Path, text: object) -> Host:
    host, _, port = str(text).rpartition(":")
    at = address(host.removeprefix("[").removesuffix("]"))
    if at is None or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise Invalid(f"{path}: {text!r} is not ADDRESS:PORT")
    return Host(at, int(port))
