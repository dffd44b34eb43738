"""The dashboards as they are committed: made by their source, and nothing in them that only one Grafana has.

That every query finds something is tried on a real fleet, in ``tests/end_to_end``.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compose import dashboards

ROOT = dashboards.GRAFANA.parents[1]
LOADED = [dashboards.load(p) for p in dashboards.FILES]
each = pytest.mark.parametrize("dashboard", LOADED, ids=[p.stem for p in dashboards.FILES])


def test_the_committed_files_are_what_the_source_makes(tmp_path: Path) -> None:
    made = tmp_path / "grafana"
    made.mkdir()
    (made / "build.py").write_text((dashboards.GRAFANA / "build.py").read_text())
    subprocess.run((sys.executable, made / "build.py"), check=True, timeout=60)
    assert {p.name: p.read_text() for p in (made / "dashboards").iterdir()} == {
        p.name: p.read_text() for p in dashboards.FILES
    }, "type: make docs"


def test_there_are_three_each_with_a_name_of_its_own() -> None:
    assert [d["uid"] for d in LOADED] == ["pinrail-edge", "pinrail-fleet", "pinrail-rollout"]
    assert len({d["title"] for d in LOADED}) == 3


@each
def test_panels_have_ids_units_words_and_room(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels) > 5
    for p in panels:
        assert p["fieldConfig"]["defaults"]["unit"], p["title"]
        assert p["description"], p["title"]
        refs = [t["refId"] for t in p["targets"]]
        assert len(set(refs)) == len(refs) > 0, p["title"]
        at = p["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24, p["title"]
    for p, q in itertools.combinations([p["gridPos"] for p in panels], 2):
        apart = p["x"] + p["w"] <= q["x"] or q["x"] + q["w"] <= p["x"]
        assert apart or p["y"] + p["h"] <= q["y"] or q["y"] + q["h"] <= p["y"], "two panels in one place"


@each
def test_the_datasource_is_whichever_the_viewer_chooses(dashboard: Any) -> None:
    def sources(node: Any) -> list[Any]:
        if isinstance(node, list):
            return [s for n in node for s in sources(n)]
        if isinstance(node, dict):
            own = [node["datasource"]] if "datasource" in node else []
            return own + [s for n in node.values() for s in sources(n)]
        return []

    found = sources(dashboard)
    assert found and all(s == {"type": "prometheus", "uid": "${datasource}"} for s in found)


@each
def test_every_variable_that_is_used_exists_and_every_one_that_exists_is_used(dashboard: Any) -> None:
    have = {v["name"] for v in dashboard["templating"]["list"]}
    text = str(dashboard["panels"]) + str(dashboard["annotations"])
    assert {m[1] or m[2] for m in dashboards.VARIABLE.finditer(text)} == have


@each
def test_steps_are_shown_where_they_happened(dashboard: Any) -> None:
    (steps,) = dashboard["annotations"]["list"]
    assert steps["useValueForTime"] is True and steps["expr"].endswith("* 1000"), "Grafana counts in milliseconds"


def test_every_metric_that_is_asked_for_is_one_of_ours() -> None:
    owners = "".join((ROOT / part / "metrics.py").read_text() for part in ("edge", "barrier", "hostagent"))
    recorded = set(re.findall(r"record: (\S+)", (ROOT / "compose/prometheus/rules.yml").read_text()))
    for query in itertools.chain(*map(dashboards.queries, LOADED)):
        for name in re.findall(r"\bpinrail[_:][\w:]+", query):
            ours = f'"{re.sub("_(sum|count|bucket)$", "", name)}"' in owners or f'"{name}"' in owners
            assert ours or name in recorded, f"{name} in {query}"


def test_provisioning_names_no_place_of_its_own() -> None:
    source = (dashboards.GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert "url: $PROMETHEUS_URL" in source and "type: prometheus" in source
    assert (
        "path: /var/lib/grafana/dashboards"
        in (dashboards.GRAFANA / "provisioning" / "dashboards" / "pinrail.yml").read_text()
    )
