"""How many series the parts make: what clients send makes none, what no plan names any more leaves none.

The figures here are the ones in docs/operating.md.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from barrier.metrics import Metrics as BarrierMetrics
from barrier.predicates import Missing
from edge import flips
from edge.metrics import Metrics as EdgeMetrics
from fleet.model import RETIRED_KEPT, Plan, Ramp, Rollout, RolloutEvent, RolloutState, Slot, SlotState
from hostagent.metrics import Metrics as HostMetrics

DOCS = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
#: Of one service, on one edge and on one host: what hostile clients can make of it at most. On the leading replica.
EDGE, HOST, BARRIER = 200, 12, 285
#: Whatever is logged: every combination of the names that are known.
EDGE_HARD = 1700


def series(registry: CollectorRegistry) -> int:
    return sum(len(m.samples) for m in registry.collect())


def known(newest: int) -> tuple[list[str], list[str]]:
    """Served and retired versions after that many releases."""
    versions = [f"v{n}" for n in range(newest, -1, -1)]
    return versions[:2], versions[2 : 2 + RETIRED_KEPT]


def log(*records: str) -> bytes:
    return "".join(f"     32770 VCL_Log        c {r}\n" for r in records).encode()


def edge(metrics: EdgeMetrics, newest: int, pins: list[str]) -> None:
    """One release; then clients ask for every pin they can think of, as documents and not. As the VCL answers them."""
    served, retired = known(newest)
    default = served[0]
    metrics.keep({"shop": frozenset((*served, *retired))})
    metrics.epoch("shop", newest)
    metrics.backends("shop", dict.fromkeys(served, 3), dict.fromkeys(served, 3))
    said = [f"pinrail shop {default} default - - doc", "pinrail shop - none - - -", "pinrail shop - error - - -"]
    for pin in (*served, *retired, *pins):
        if pin in served:
            said += [f"pinrail shop {pin} exact {pin} - doc", f"pinrail-stamp shop {pin} {random.choice(pins)}"]
        else:
            said.append(f"pinrail shop {default} forced {pin} {'retired' if pin in retired else 'unknown'} doc")
        said.append(f"pinrail shop {default} back {pin} generation doc")
    flips.count(flips.records(log(*said)), {"shop": frozenset((*served, *retired))}, metrics)


def test_hostile_clients_make_no_series_over_thirty_releases() -> None:
    metrics = EdgeMetrics("edge-1")
    bare = series(metrics.registry)
    random.seed(7)
    counts = []
    for newest in range(30):
        edge(metrics, newest, [f"{random.randrange(1 << 40):x}" for _ in range(300)])
        counts.append(series(metrics.registry) - bare)
    assert counts[-1] <= EDGE, counts
    assert counts[-1] == counts[-10], "it still grows"
    names = {s.labels.get("version") or s.labels.get("to") for m in metrics.registry.collect() for s in m.samples}
    assert "v0" not in names and "v29" in names


def test_nothing_that_can_be_logged_makes_more_than_the_hard_cap() -> None:
    metrics = EdgeMetrics("edge-1")
    bare = series(metrics.registry)
    served, retired = known(20)
    names = [*served, *retired, "-", "made-up", "x" * 60]
    causes = sorted(flips._CAUSES)
    for outcome in (*flips._OUTCOMES, "invented"):
        for to in names:
            records = [f"pinrail shop {to} {outcome} {origin} {c} doc" for origin in names for c in (*causes, "zzz")]
            records += [f"pinrail-stamp shop {to} {got}" for got in names]
            flips.count(flips.records(log(*records)), {"shop": frozenset((*served, *retired))}, metrics)
    assert 1000 < series(metrics.registry) - bare <= EDGE_HARD


def test_a_host_has_series_of_what_is_in_its_slots_and_of_nothing_else() -> None:
    metrics = HostMetrics("host-1")
    bare = series(metrics.registry)
    for release in range(50):
        slots = (
            Slot(index=0, port=1, build=f"b{release}", state=random.choice(list(SlotState)), processes=2, live=1),
            Slot(index=1, port=2, build=f"b{release + 1}", state=SlotState.SERVING, processes=2, live=2),
        )
        metrics.slots([("shop", s) for s in slots])
        assert series(metrics.registry) - bare <= HOST
    assert "b3" not in str([s.labels for m in metrics.registry.collect() for s in m.samples])
    metrics.slots([])
    assert series(metrics.registry) == bare


def rollout(number: int) -> Rollout:
    states = list(RolloutState)
    history = tuple(RolloutEvent(at=1000.0 * number + n, state=s, text="", epoch=n) for n, s in enumerate(states))
    digest = f"sha256:{'0' * 64}"
    return Rollout(
        number=number, service="shop", build=f"b{number}", digest=digest, by="ci", state=states[-1], history=history
    )


def test_of_all_rollouts_of_a_service_only_the_last_has_series() -> None:
    metrics = BarrierMetrics()
    bare = series(metrics.registry)
    for number in (1, 2, 3):
        metrics.rollout(rollout(number))
        metrics.left("shop", RolloutState.WITHDRAWING, 0.5)
        metrics.missing("shop", (Missing("edge-1", "away"),))
    value = metrics.registry.get_sample_value
    name = "pinrail_rollout_step_timestamp_seconds"
    labels = {"service": "shop", "step": "withdrawing"}
    assert value(name, {**labels, "rollout": "3", "build": "b3"}) == 3001
    assert value(name, {**labels, "rollout": "2", "build": "b2"}) is None
    assert value("pinrail_rollout_state", {"service": "shop", "state": "failed"}) == 1
    metrics.forget("shop")
    assert series(metrics.registry) == bare, "a service that is gone leaves nothing"


def test_every_state_and_step_of_a_service_is_within_the_leaders_cap() -> None:
    metrics = BarrierMetrics()
    bare = series(metrics.registry)
    for number in range(1, 6):
        metrics.rollout(rollout(number))
        for state in RolloutState:
            metrics.left("shop", state, 0.5)
        metrics.plan("shop", Plan(epoch=number, default=f"b{number}", serving=(f"b{number + 1}", f"b{number}")))
    assert BARRIER - 10 < series(metrics.registry) - bare <= BARRIER
    metrics.forget("shop")
    assert series(metrics.registry) == bare


def test_of_the_plan_only_what_is_served_has_series() -> None:
    metrics = BarrierMetrics()

    def shown() -> dict[str, str]:
        said = (s for m in metrics.registry.collect() for s in m.samples if s.name == "pinrail_plan_version_info")
        return {s.labels["version"]: s.labels["role"] for s in said}

    metrics.plan("shop", Plan(epoch=4, default="a", serving=("b", "a"), ramp=Ramp(version="b", percent=1)))
    assert shown() == {"a": "default", "b": "ramp"}
    metrics.plan("shop", Plan(epoch=5, default="b", serving=("b", "a")))
    assert shown() == {"a": "served", "b": "default"}
    metrics.plan("shop", Plan(epoch=6, default="b", serving=("b",), retired=("a",)))
    assert shown() == {"b": "default"}
    assert metrics.registry.get_sample_value("pinrail_plan_epoch", {"service": "shop"}) == 6
    metrics.forget("shop")
    assert shown() == {}


def test_the_docs_have_these_figures() -> None:
    said = re.sub(r"\s+", " ", DOCS)
    for words in (
        f"at most {EDGE} of a service on an edge",
        f"{HOST} of a service on a host",
        f"{EDGE_HARD:,}",
        f"and {BARRIER}, and",
    ):
        assert words in said, words
