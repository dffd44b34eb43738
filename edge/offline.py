"""What an edge would load, without an edge: for a person with a plan in a file. Reads files, writes files, compiles."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge import render, server
from edge.members import Host, is_address
from edge.render import Rendered, Route
from fleet import proc
from fleet.config import BadConfig, sentence
from fleet.files import write_atomic
from fleet.model import Plan, ServiceConfig
from fleet.names import build_name, service_name


def read(service: str, plan: Path, members: Path, config: Path | None) -> dict[str, Rendered]:
    """File name -> what would be loaded. Raises BadConfig with the file and what is wrong in it, or BadName."""
    service_name(service)
    try:
        routing = Plan.model_validate(_parsed(plan))
    except ValidationError as e:
        raise BadConfig(f"{plan}: {sentence(e)}") from e
    try:
        settings = ServiceConfig.model_validate(_parsed(config) if config else {}, extra="forbid")
    except ValidationError as e:
        raise BadConfig(f"{config}: {sentence(e)}") from e
    sets = {build_name(v): tuple(_host(members, h) for h in hosts) for v, hosts in _parsed(members).items()}
    found = {"current.vcl": render.service(service, settings, routing, sets)}
    if routing.staged:
        found["staged.vcl"] = render.service(service, settings, routing.committed(), sets)
    found["root.vcl"] = render.root([Route(service, settings.match)], None)
    return found


def write(vcls: dict[str, Rendered], to: Path) -> list[Path]:
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, r in vcls.items():
            write_atomic(to / name, r.text)
    except OSError as e:
        raise BadConfig(f"cannot write to {to}: {e.strerror}") from e
    return [to / name for name in vcls]


def compile_all(vcls: dict[str, Rendered], program: str) -> list[tuple[str, str | None]]:
    """File name -> None where varnishd compiles it, else what it said. The root is skipped: it needs loaded labels."""
    results: list[tuple[str, str | None]] = []
    with tempfile.TemporaryDirectory(prefix="pinrail-check-") as directory:
        for name, r in vcls.items():
            if name == "root.vcl":
                continue
            path = Path(directory) / name
            path.write_text(r.text)
            line = [program, "-C", "-j", "none", "-n", f"{directory}/work", "-f", str(path)]
            if server.tcc_is_here():
                line += ["-p", f"cc_command={server.TCC}"]
            try:
                result = proc.run(line, deadline=300)
            except FileNotFoundError as e:
                raise BadConfig(f"{program} is not installed: apt-get install varnish") from e
            results.append((name, (result.output.strip() or f"exit {result.code}") if result.code else None))
    return results


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        parsed = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as e:
        raise BadConfig(f"cannot read {path}: {e.strerror}") from e
    except ValueError as e:
        raise BadConfig(f"{path} is neither JSON nor TOML: {e}") from e
    if not isinstance(parsed, dict):
        raise BadConfig(f"{path} must hold one object")
    return parsed


def _host(path: Path, text: object) -> Host:
    address, _, port = str(text).rpartition(":")
    if not is_address(address) or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise BadConfig(f"{path}: {text!r} is not HOST:PORT")
    return Host(address, int(port))
