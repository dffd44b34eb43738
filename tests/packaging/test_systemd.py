"""The systemd units: systemd accepts them, they are as shut off as the docs say, and name what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.local.conftest import run

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
DOCS = (ROOT / "docs" / "systemd.md").read_text()
PROGRAM = "/opt/pinrail/bin/pinrail"
each = pytest.mark.parametrize("unit", UNITS, ids=[u.stem for u in UNITS])
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze comes with Debian's systemd"
)


def analyze(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = ("systemd-analyze", "--no-pager", *map(str, words))
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a directory of their own, with a program that is there."""
    program = tmp_path / "pinrail"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, str(program)))
    return tmp_path


@needs_systemd
def test_systemd_accepts_them(installed: Path) -> None:
    done = analyze("verify", "--man=no", *(f"./{u.name}" for u in UNITS), cwd=installed)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_a_unit_that_is_wrong_is_found(installed: Path) -> None:
    unit = installed / UNITS[0].name
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=very"))
    assert "protect system value" in analyze("verify", "--man=no", f"./{unit.name}", cwd=installed).stderr


@needs_systemd
@each
def test_they_are_as_exposed_as_the_docs_say_at_most(unit: Path, installed: Path) -> None:
    row = re.search(rf"^\| `{re.escape(unit.name)}` \|[^|]*\| (\d+\.\d) \|", DOCS, re.M)
    assert row is not None, "docs/systemd.md has no figure for it"
    threshold = round(float(row[1]) * 10)  # systemd counts in tenths here
    done = analyze("security", "--offline=true", f"--threshold={threshold}", f"./{unit.name}", cwd=installed)
    assert done.returncode == 0, done.stdout[-500:]
    tighter = analyze("security", "--offline=true", f"--threshold={threshold - 5}", f"./{unit.name}", cwd=installed)
    assert tighter.returncode == 1, "it is better than the docs say: write down the new figure"


@each
def test_what_they_start_is_a_command_with_a_file_that_the_docs_explain(unit: Path) -> None:
    start = re.search(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    assert start is not None
    program, part, verb, option, config = start[1].split()
    assert (program, option) == (PROGRAM, "--config")
    assert run(part, verb, "--help").returncode == 0
    assert config == f"/etc/pinrail/{part}.toml"
    assert (ROOT / "docs" / "config" / f"{part}.toml").exists()


@each
def test_directories_are_the_ones_of_the_configuration(unit: Path) -> None:
    """The units make the directories that the example files name, and no others are written to."""
    text = unit.read_text()
    part = re.search(r"/etc/pinrail/(\w+)\.toml", text)[1]  # type: ignore[index]
    config = tomllib.loads((ROOT / "docs" / "config" / f"{part}.toml").read_text())
    state = re.findall(r"^StateDirectory=(.*)$", text, re.M)
    if part == "barrier":
        assert state == []
        return
    # One and no parent of others': systemd gives all that is in it to the unit's user, whenever it has another owner.
    assert [f"/var/lib/{s}" for s in state] == [config["directory"]]
    runtime = re.findall(r"^RuntimeDirectory=(.*)$", text, re.M)
    assert [f"/run/{r}" for r in runtime] == ([config["run"]] if "run" in config else [])


@each
def test_a_server_outlives_its_agent_and_no_agent_is_held_back(unit: Path) -> None:
    text = unit.read_text()
    assert "Restart=always" in text and "StartLimitIntervalSec=0" in text
    for word in ("BindsTo=", "PartOf=", "Requires="):
        assert word not in text, "what serves must not end with anything else"


@each
def test_the_docs_say_each_path_of_a_secret_as_the_configuration_does(unit: Path) -> None:
    part = re.search(r"/etc/pinrail/(\w+)\.toml", unit.read_text())[1]  # type: ignore[index]
    config = tomllib.loads((ROOT / "docs" / "config" / f"{part}.toml").read_text())
    named = [config["zookeeper_access"], *([config["s3"]["credentials"]] if "s3" in config else [])]
    assert [path for path in named if path not in DOCS] == []
