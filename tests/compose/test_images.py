"""What is in the images: nothing secret, no more rights than needed, signals and health looked after."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bench.engine import ROOT, TARGETS, docker, image

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("images")]

#: What of a checkout may be in an image.
OURS = {"barrier", "edge", "fleet", "hostagent", "nginx", "pinrail", "pipeline", "samples", "vcl", "VERSION"}
SECRET = re.compile(r"token|secret|passw|credential|private|_key", re.I)
DOCS = re.sub(r"\s+", " ", (ROOT / "docs" / "compose.md").read_text())
each = pytest.mark.parametrize("target", TARGETS)


def config(target: str) -> Any:
    return json.loads(docker("inspect", image(target)))[0]["Config"]


@each
def test_signals_reach_it_and_its_health_is_asked(target: str) -> None:
    made = config(target)
    assert made["Entrypoint"][:2] == ["tini", "--"], "process 1 must hand on signals, and bury the dead"
    assert ("Healthcheck" in made) == (target != "tools")


@each
def test_it_takes_no_more_room_than_the_docs_say(target: str) -> None:
    said = re.search(rf"As the engine counts, in MB:[^;]*\b{target} (\d+)", DOCS)
    assert said is not None, "docs/compose.md has no figure for it"
    size = json.loads(docker("inspect", image(target)))[0]["Size"] / 1e6
    assert size < int(said[1]) * 1.1, "what else is in it?"


@each
def test_only_hosts_are_root(target: str) -> None:
    assert config(target).get("User", "") == ("" if target == "host" else "pinrail")


@each
def test_no_layer_holds_a_secret_or_more_of_a_checkout_than_it_needs(target: str) -> None:
    names = {variable.split("=")[0] for variable in config(target)["Env"] or ()}
    assert not {n for n in names if SECRET.search(n)}
    look = "find /secrets /run/pinrail /var/lib/pinrail /root /home /tmp ! -type d; ls -A /opt/pinrail/app 2>/dev/null"
    box = ("run", "--rm", "--user", "0", "--network", "none", "--entrypoint", "sh", image(target), "-c", f"{look}; :")
    found = set(docker(*box).split())
    skeleton = {"/root/.bashrc", "/root/.profile"}
    assert found - skeleton - OURS == set()
    assert (found & OURS) in (OURS, set())
