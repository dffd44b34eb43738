"""Looking at the dashboards as Grafana does: what they ask for, with their variables filled in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).parents[2] / "compose" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
#: A variable in a text: ``$name``, ``${name}``.
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def queries(dashboard: Any) -> list[str]:
    """Every query, of panels, annotations and variables (``label_values`` asks for a metric's series)."""
    found = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    found += [a["expr"] for a in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            found.append(f'{metric}{{{label}!=""}}')
    return found


def filled(query: str, values: dict[str, str]) -> str:
    """Raises KeyError for a variable that has no value."""
    return VARIABLE.sub(lambda m: values[m[1] or m[2]], query)
