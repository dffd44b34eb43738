"""The Prometheus rules as they are shipped: valid, tried in both directions, each alert with its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "compose" / "prometheus"
ALERTS = re.findall(r"- alert: (\w+)", (RULES / "rules.yml").read_text())
RECORDED = re.findall(r"- record: ([\w:]+)", (RULES / "rules.yml").read_text())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")
@pytest.mark.parametrize("command", [["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]])
def test_promtool_accepts(command: list[str]) -> None:
    result = subprocess.run(["promtool", *command], cwd=RULES, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")
def test_prometheus_accepts_its_configuration_with_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=RULES, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS) + len(RECORDED)} rules found" in done.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_page_and_is_tried_both_ways(alert: str) -> None:
    assert (ROOT / "docs" / "runbooks" / f"{alert}.md").read_text().startswith(f"# {alert}\n")
    assert f"runbook: docs/runbooks/{alert}.md" in (RULES / "rules.yml").read_text()
    tests = (RULES / "rules_test.yml").read_text()
    assert f"alertname: {alert}, exp_alerts: []" in tests, "no case in which it is silent"
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", tests), "no case in which it fires"


def test_every_metric_in_the_rules_is_one_of_ours() -> None:
    owners = "".join((ROOT / part / "metrics.py").read_text() for part in ("edge", "barrier", "hostagent"))
    used = set(re.findall(r"\bpinrail_\w+", (RULES / "rules.yml").read_text()))
    assert used
    assert {m for m in used if f'"{m}"' not in owners} == set()


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    assert sorted(p.stem for p in (ROOT / "docs" / "runbooks").iterdir()) == sorted(ALERTS)
