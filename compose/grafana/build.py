"""The Grafana dashboards: their one source. ``python compose/grafana/build.py`` writes ``dashboards/*.json``.

Every query asks for metrics and recorded series of ``compose/prometheus``; each is run by a test against a Prometheus
that has scraped a real rollout. Deterministic: the same source makes the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "dashboards"
Json = dict[str, Any]

_PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
#: Columns of Grafana's grid, and what one row of panels takes of its height.
_COLUMNS, _HEIGHT = 24, 8


@dataclass(frozen=True)
class Panel:
    title: str
    #: Query -> how its series are called.
    queries: dict[str, str]
    unit: str
    says: str
    kind: str = "timeseries"
    #: Of 24 columns.
    width: int = 12
    stacked: bool = False

    def json(self, number: int, x: int, y: int, height: int) -> Json:
        custom: Json = {}
        options: Json = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
        if self.kind == "timeseries":
            fill = 35 if self.stacked else 0
            stacking = {"mode": "normal" if self.stacked else "none", "group": "A"}
            custom = {"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "stacking": stacking}
            options["tooltip"] = {"mode": "multi", "sort": "desc"}
        elif self.kind == "stat":
            options = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
        elif self.kind == "bargauge":
            options = {"orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}}
        elif self.kind == "state-timeline":
            custom = {"lineWidth": 0, "fillOpacity": 80}
            options = {"mergeValues": True, "showValue": "never", "legend": {"showLegend": False}}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.says,
            "datasource": _PROMETHEUS,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": height},
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0, "custom": custom}, "overrides": []},
            "options": options,
            "targets": [
                {"refId": chr(ord("A") + n), "datasource": _PROMETHEUS, "expr": expr, "legendFormat": legend}
                for n, (expr, legend) in enumerate(self.queries.items())
            ],
        }


@dataclass(frozen=True)
class Variable:
    name: str
    query: str
    several: bool = False

    def json(self) -> Json:
        everything = {"text": "All", "value": "$__all"}
        return {
            "name": self.name,
            "label": self.name,
            "type": "query",
            "datasource": _PROMETHEUS,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,
            "sort": 1,
            "includeAll": self.several,
            "multi": self.several,
            **({"current": everything} if self.several else {}),
        }


_DATASOURCE = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
_SERVICE = "label_values(pinrail_edge_epoch, service)"


def _steps(service: str) -> Json:
    """When the rollouts of a service came to their steps: the value of each series is the time, in milliseconds."""
    by = "max by (service, rollout, build, step)"
    return {
        "name": "Steps",
        "datasource": _PROMETHEUS,
        "enable": True,
        "iconColor": "purple",
        "expr": f"{by} (pinrail_rollout_step_timestamp_seconds{{{service}}}) * 1000",
        "step": "15s",
        "useValueForTime": True,
        "titleFormat": "{{step}}",
        "textFormat": "rollout {{rollout}} of {{build}}",
        "tagKeys": "service,build",
    }


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    says: str
    variables: tuple[Variable, ...]
    rows: tuple[tuple[Panel, ...], ...]
    #: The matcher for the services whose steps are shown on every graph.
    steps: str

    def json(self) -> Json:
        panels: list[Json] = []
        y = 0
        for row in self.rows:
            x, height = 0, _HEIGHT // 2 if all(p.kind == "stat" for p in row) else _HEIGHT
            for panel in row:
                panels.append(panel.json(len(panels) + 1, x, y, height))
                x += panel.width
            y += height
        return {
            "uid": f"pinrail-{self.name}",
            "title": self.title,
            "description": self.says,
            "tags": ["pinrail"],
            "editable": True,
            "schemaVersion": 38,
            "version": 1,
            "refresh": "10s",
            "time": {"from": "now-30m", "to": "now"},
            "graphTooltip": 1,
            "templating": {"list": [_DATASOURCE, *(v.json() for v in self.variables)]},
            "annotations": {"list": [_steps(self.steps)]},
            "links": [{"type": "dashboards", "title": "Pinrail", "tags": ["pinrail"], "includeVars": True}],
            "panels": panels,
        }


_ANY = 'service=~"$service"'
_ONE = 'service="$service"'
_EDGE = 'edge="$edge", service=~"$service"'


def _stat(title: str, query: str, says: str, unit: str = "none") -> Panel:
    return Panel(title, {query: ""}, unit, says, kind="stat", width=4)


def _slots(matcher: str) -> Panel:
    return Panel(
        "Slots of hosts",
        {f"sum by (version, state) (pinrail_host_slot_info{{{matcher}}})": "{{version}} {{state}}"},
        "none",
        "What hosts have in their slots: a release goes through them a wave at a time.",
        stacked=True,
    )


def _versions(matcher: str, legend: str, width: int = 12) -> Panel:
    return Panel(
        "Versions of the plan",
        {f"max by (service, version, role) (pinrail_plan_version_info{{{matcher}}})": legend},
        "none",
        "Those that are served, as long as they are, and what for.",
        kind="state-timeline",
        width=width,
    )


def _epochs(matcher: str, edge: str, plan: str) -> Panel:
    return Panel(
        "Epoch that edges use",
        {
            f"pinrail_edge_epoch{{{matcher}}}": edge,
            f"max by (service) (pinrail_plan_epoch{{{matcher}}})": plan,
        },
        "none",
        "Each change of the plan is one more; an edge below it is behind. At a switch all move within milliseconds.",
    )


def _missing(matcher: str) -> Panel:
    return Panel(
        "Who is waited for",
        {f"max by (service, edge) (pinrail_barrier_missing{{{matcher}}})": "{{service}} {{edge}}"},
        "none",
        "The edges and hosts that the rollout's barrier waits for.",
        stacked=True,
    )


def _flips(matcher: str, by: str, legend: str, width: int = 12) -> Panel:
    return Panel(
        "Flip-flops a second",
        {f"sum by ({by}) (pinrail:flips:rate1m{{{matcher}}})": legend},
        "reqps",
        "Requests that another version answered than the one they came from. `retired`: moved by a release, once.",
        width=width,
    )


FLEET = Dashboard(
    "fleet",
    "Pinrail: fleet",
    "The plan, versions, edges and hosts of all services.",
    (Variable("service", _SERVICE, several=True),),
    (
        (
            _stat("Edges", 'sum(up{job="edge"})', "Agents that answer."),
            _stat("Hosts", 'sum(up{job="host"})', "Agents that answer."),
            _stat("Leaders", "sum(pinrail_barrier_leading)", "Replicas of the barrier service that lead: one."),
            _stat("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', "Alerts that fire."),
            _stat("What edges cannot use", "sum(pinrail_edge_fault) or vector(0)", "Edges keep the last good one."),
            _stat("Confirmed", "max(pinrail_edge_last_good_age_seconds)", "The longest ago of all edges.", "s"),
        ),
        (
            Panel(
                "Requests by version",
                {
                    f"sum by (service, version) (rate(pinrail_edge_requests_total{{{_ANY}}}[1m]))": (
                        "{{service}} {{version}}"
                    )
                },
                "reqps",
                "As the edges answered them.",
                stacked=True,
            ),
            _flips(_ANY, "service, cause", "{{service}} {{cause}}"),
        ),
        (
            _versions(_ANY, "{{service}} {{version}} ({{role}})"),
            _epochs(_ANY, "{{service}} {{edge}}", "{{service}}, the plan"),
        ),
        (
            Panel(
                "Healthy hosts, as edges see them",
                {
                    f'min by (service, version) (pinrail_edge_backends{{{_ANY}, health="healthy"}})': (
                        "{{service}} {{version}}"
                    )
                },
                "none",
                "The edge that sees the fewest.",
            ),
            _slots(_ANY),
        ),
        (
            Panel(
                "Processes that are missing",
                {
                    f'sum by (service, host) (pinrail_host_pool_processes{{{_ANY}, kind="wanted"}})'
                    f' - sum by (service, host) (pinrail_host_pool_processes{{{_ANY}, kind="live"}})': (
                        "{{service}} {{host}}"
                    )
                },
                "none",
                "Of the pools that hosts should have.",
            ),
            _missing(_ANY),
        ),
        (
            Panel(
                "Share of forced requests",
                {f"pinrail:forced:ratio1m{{{_ANY}}}": "{{service}}"},
                "percentunit",
                "Requests for retired versions. It rises with a release and falls as pages reload.",
                width=24,
            ),
        ),
    ),
    _ANY,
)

ROLLOUT = Dashboard(
    "rollout",
    "Pinrail: rollout",
    "One service's rollouts: flip-flops by cause, with each step where it happened.",
    (Variable("service", _SERVICE),),
    (
        (
            Panel(
                "Step",
                {f"max by (state) (pinrail_rollout_state{{{_ONE}}}) == 1": "{{state}}"},
                "none",
                "The state of the rollout that is active or was last.",
                kind="state-timeline",
                width=24,
            ),
        ),
        (_flips(_ONE, "cause", "{{cause}}", width=24),),
        (
            Panel(
                "Pages by version",
                {f"sum by (version) (rate(pinrail_edge_documents_total{{{_ONE}}}[1m]))": "{{version}}"},
                "reqps",
                "New page loads: what a ramp and a switch move.",
                stacked=True,
            ),
            Panel(
                "Requests by outcome",
                {f"sum by (outcome) (rate(pinrail_edge_requests_total{{{_ONE}}}[1m]))": "{{outcome}}"},
                "reqps",
                "How their version was chosen.",
                stacked=True,
            ),
        ),
        (_slots(_ONE), _missing(_ONE)),
        (
            Panel(
                "Seconds in a step, on average",
                {
                    f"sum by (step) (pinrail_rollout_seconds_sum{{{_ONE}}})"
                    f" / sum by (step) (pinrail_rollout_seconds_count{{{_ONE}}})": "{{step}}"
                },
                "s",
                "Since the leader leads.",
                kind="bargauge",
                width=8,
            ),
            Panel(
                "Seconds until barriers were met, on average",
                {
                    f"sum by (kind) (pinrail_barrier_wait_seconds_sum{{{_ONE}}})"
                    f" / sum by (kind) (pinrail_barrier_wait_seconds_count{{{_ONE}}})": "{{kind}}"
                },
                "s",
                "What edges took to drain, to stage and to apply.",
                kind="bargauge",
                width=8,
            ),
            Panel(
                "Clients moved, by the version they got",
                {f"pinrail:forced:moves{{{_ONE}}}": "{{to}}"},
                "none",
                "Requests whose version a release had withdrawn, since the edges' agents started.",
                kind="bargauge",
                width=8,
            ),
        ),
        (_versions(_ONE, "{{version}} ({{role}})", width=24),),
        (
            _epochs(_ONE, "{{edge}}", "the plan"),
            Panel(
                "Seconds since each step",
                {f"pinrail:rollout:step_age_seconds{{{_ONE}}}": "{{rollout}} {{build}} {{step}}"},
                "s",
                "Of the rollout that is active or was last.",
            ),
        ),
    ),
    _ONE,
)

#: Not every metric of an edge has its name; every edge says its name once.
_NAMED = 'on (instance) group_left (edge) (0 * pinrail_edge_counting{edge="$edge"} + 1)'

EDGE = Dashboard(
    "edge",
    "Pinrail: an edge",
    "What one edge serves, by its own words.",
    (Variable("edge", "label_values(pinrail_edge_counting, edge)"), Variable("service", _SERVICE, several=True)),
    (
        (
            _stat("Requests", f"sum(rate(pinrail_edge_requests_total{{{_EDGE}}}[1m]))", "A second.", "reqps"),
            _stat("Confirmed", 'pinrail_edge_last_good_age_seconds{edge="$edge"}', "Seconds ago.", "s"),
            _stat("Counts each request", 'pinrail_edge_counting{edge="$edge"}', "1, or nothing here is exact."),
            _stat("Records lost", 'pinrail_edge_log_overruns_total{edge="$edge"}', "Since the agent started."),
            _stat("What it cannot use", f"sum(pinrail_edge_fault{{{_EDGE}}}) or vector(0)", "Its log says what."),
            _stat("Held server sets", f"sum(pinrail_edge_serverset_held{{{_EDGE}}}) or vector(0)", "Not believed."),
        ),
        (
            Panel(
                "Requests by outcome",
                {
                    f"sum by (service, outcome) (rate(pinrail_edge_requests_total{{{_EDGE}}}[1m]))": (
                        "{{service}} {{outcome}}"
                    )
                },
                "reqps",
                "How their version was chosen.",
                stacked=True,
            ),
            _flips(_EDGE, "service, from, to, cause", "{{service}} {{from}} to {{to}} {{cause}}"),
        ),
        (
            Panel(
                "Requests by version",
                {
                    f"sum by (service, version) (rate(pinrail_edge_requests_total{{{_EDGE}}}[1m]))": (
                        "{{service}} {{version}}"
                    )
                },
                "reqps",
                "As it answered them.",
                stacked=True,
            ),
            Panel(
                "Hosts, by its own probes",
                {f"pinrail_edge_backends{{{_EDGE}}}": "{{service}} {{version}} {{health}}"},
                "none",
                "Healthy and sick ones of each version.",
                stacked=True,
            ),
        ),
        (
            Panel(
                "Epoch",
                {
                    f"pinrail_edge_epoch{{{_EDGE}}}": "{{service}}",
                    f"max by (service) (pinrail_plan_epoch{{{_ANY}}})": "{{service}}, the plan",
                },
                "none",
                "Its own, and the plan's.",
            ),
            Panel(
                "Seconds of a load, by phase",
                {
                    f"sum by (phase) (pinrail_edge_load_seconds_sum * {_NAMED})"
                    f" / sum by (phase) (pinrail_edge_load_seconds_count * {_NAMED})": "{{phase}}"
                },
                "s",
                "On average, since the agent started: render, compile, probe, switch, drain.",
                kind="bargauge",
            ),
        ),
    ),
    _ANY,
)

DASHBOARDS = (FLEET, ROLLOUT, EDGE)


def text(dashboard: Dashboard) -> str:
    return json.dumps(dashboard.json(), indent=1) + "\n"


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (HERE / f"{dashboard.name}.json").write_text(text(dashboard))


if __name__ == "__main__":
    main()
