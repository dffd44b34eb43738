"""What a service's own policy does about a rollout that does not move: nothing, an abort, evictions."""

from __future__ import annotations

import dataclasses

import pytest

from barrier import remedies
from barrier.predicates import Edges, Missing
from barrier.stalls import Stalls
from barrier.store import audit
from barrier.view import View
from fleet.model import Enabled, Plan, Request, ServiceConfig
from tests.barrier.conftest import Fleet
from tests.conftest import eventually


def begin(fleet: Fleet, edges: int, **config: object) -> int:
    """B is deployed; then C begins, while edge-1's agent is away and all others are well."""
    for n in range(1, edges + 1):
        fleet.edge(f"edge-{n}")
    fleet.configure()
    fleet.host("host-1")
    fleet.replica()
    fleet.deploy("A")
    fleet.deploy("B")
    fleet.configure(**config)
    lost = next(t for t in fleet.threads if t.name == "edge-1")
    lost.stop()
    fleet.threads.remove(lost)
    return fleet.begin("C").number


def newest(fleet: Fleet) -> audit.Entry:
    return audit.last(fleet.store.zk, 1, lambda _: True)[0]


def test_abort_undoes_what_has_stalled(fleet: Fleet) -> None:
    number = begin(fleet, 2, when_stalled="abort", give_up_seconds=0.6)
    fleet.until(number, "aborting")  # it waits for the same edge, and an abort is not aborted
    said = next(e.text for e in fleet.get(number).history if e.state == "aborting")
    assert said.startswith("abort: no progress for 0.6 s: edge-1: no ack (its agent is away)")
    assert said.endswith("(asked by the stall policy of shop)")
    entry = newest(fleet)
    assert (entry.action, entry.by, entry.role, entry.rollout) == ("abort", "barrier-1", "leader", number)
    fleet.edge("edge-1")
    fleet.until(number, "aborted", done=True)
    assert fleet.store.plan("shop").serving == ("B", "A")


def test_evict_lets_it_go_on_without_the_edge_whose_agent_is_gone(fleet: Fleet) -> None:
    number = begin(fleet, 3, when_stalled="evict", give_up_seconds=0.6)
    done = fleet.until(number, "switched", done=True)
    assert fleet.store.fleet().roster == ("edge-2", "edge-3")
    assert any(e.text.startswith("edge-1 is evicted by the stall policy: no progress for 0.6 s") for e in done.history)
    entry = newest(fleet)
    assert (entry.action, entry.edge, entry.service, entry.role) == ("evict", "edge-1", "shop", "leader")
    # it comes back: it joins again, and the next rollout waits for it
    back = fleet.edge("edge-1")
    eventually("edge-1 to join", lambda: "edge-1" in fleet.store.fleet().roster)
    back.drains = False
    following = fleet.begin("D").number
    fleet.until(following, "withdrawing")


def view(state: str = "withdrawing", *, roster: int = 4, away: int = 1, **config: object) -> View:
    edges = tuple(f"edge-{n}" for n in range(roster))
    return View(
        rollout=Fleet.wanted("C", state=state, previous="B"),
        config=ServiceConfig.model_validate({"stall_seconds": 1, "give_up_seconds": 5} | config),
        plan=Plan(epoch=3, default="B", serving=("B",)),
        enabled=Enabled(),
        edges=Edges(edges, frozenset(edges[away:])),
    )


AWAY = [Missing(f"edge-{n}", "no ack (its agent is away)") for n in range(4)]


@pytest.mark.parametrize(
    ("seen", "missing", "evicted"),
    [
        (view(when_stalled="evict"), AWAY[:1], ("edge-0",)),
        (view(when_stalled="evict", away=2), AWAY[:2], ("edge-0", "edge-1")),
        (view(when_stalled="evict", away=3), AWAY[:3], None),  # more than half of the roster
        (view(when_stalled="evict", roster=1), AWAY[:1], None),
        (view(when_stalled="evict", away=0), [Missing("edge-0", "requests left")], None),  # it lives, and says why
        (view(when_stalled="evict"), [Missing("host-1", "fetch")], None),
        (view(when_stalled="wait"), AWAY[:1], None),
        (view("switched", when_stalled="abort"), AWAY[:1], None),  # it cannot be undone any more
        (view("aborting", when_stalled="abort"), AWAY[:1], None),
    ],
)
def test_what_the_policy_has_for_it(seen: View, missing: list[Missing], evicted: tuple[str, ...] | None) -> None:
    found = remedies.find(seen, missing)
    assert (found.evict if found else None) == evicted


def test_a_resume_that_waits_for_the_same_edges_is_no_reason_to_wait_for_ever() -> None:
    for verb, acts in (("resume", True), ("pause", False)):
        seen = view("ramping", when_stalled="abort")
        asked = seen.rollout.model_copy(update={"request": Request(verb=verb, by="ann")})  # type: ignore[arg-type]
        found = remedies.find(dataclasses.replace(seen, rollout=asked), AWAY[:1])
        assert (found is not None and found.abort) is acts


def test_nobody_is_hurried_who_waits_on_purpose_or_still_moves() -> None:
    stalls, ramp = Stalls(), [Missing("ramp", "held at 10 %")]
    for state, missing, stalled in (
        ("withdrawing", AWAY[:2], True),
        ("paused", [Missing("rollout", "paused")], False),
        ("ramping", ramp, False),
        ("ramping", [*ramp, *AWAY[:1]], True),
    ):
        seen = view(state, when_stalled="abort")
        stalls.forget("shop")
        assert stalls.reasons(seen, missing, 10.0) == ()
        assert not stalls.given_up(seen, 14.9)
        assert bool(stalls.reasons(seen, missing, 15.0)) is stalled
        assert stalls.given_up(seen, 15.0) is stalled
    seen = view(when_stalled="abort")
    stalls.reasons(seen, AWAY[:2], 0.0)
    stalls.reasons(seen, AWAY[:1], 4.0)  # one fewer: progress
    assert not stalls.given_up(seen, 6.0)
    assert stalls.given_up(seen, 9.0)
