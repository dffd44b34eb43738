"""Barriers: who is missing, and why, in the words that people read."""

from __future__ import annotations

import pytest

from barrier import predicates
from barrier.predicates import Edges
from fleet.model import Ack


def edges(**acks: Ack | None) -> Edges:
    names = tuple(n.replace("_", "-") for n in acks)
    given = {n.replace("_", "-"): a for n, a in acks.items() if a is not None}
    return Edges(names, frozenset(given), given)


def ack(epoch: int = 0, **fields: object) -> Ack:
    return Ack.model_validate({"incarnation": "x", "applied": epoch, "staged": epoch, "drained": epoch} | fields)


def said(missing: tuple[predicates.Missing, ...]) -> list[str]:
    return [str(m) for m in missing]


def test_every_rostered_edge_counts_and_no_other() -> None:
    seen = Edges(("edge-1", "edge-2"), frozenset({"edge-2"}), {"edge-3": ack(1)})
    assert said(predicates.applied(seen, 1)) == [
        "edge-1: no ack (its agent is away)",
        "edge-2: no ack (it has not seen this service yet)",
    ]
    assert predicates.applied(Edges(), 1) == ()


def test_applied_is_the_epoch_or_a_newer_one() -> None:
    seen = edges(edge_1=ack(17), edge_2=ack(19), edge_3=ack(20))
    assert said(predicates.applied(seen, 19)) == ["edge-1: epoch 17 of 19"]


def test_an_edges_own_error_is_told() -> None:
    seen = edges(edge_1=ack(17, error="VCL does not compile: line 3"))
    assert said(predicates.applied(seen, 19)) == ["edge-1: epoch 17 of 19: VCL does not compile: line 3"]
    assert predicates.applied(seen, 17) == ()


def test_drained_and_staged_ask_for_applied_too() -> None:
    assert said(predicates.drained(edges(e=ack(19, drained=18)), 19)) == [
        "e: requests left on plans older than epoch 19"
    ]
    assert said(predicates.drained(edges(e=ack(18, drained=19)), 19)) == ["e: epoch 18 of 19"]
    assert said(predicates.staged(edges(e=ack(19, staged=18)), 19)) == ["e: staged plan of epoch 19 not warm (has 18)"]


@pytest.mark.parametrize(
    ("percent", "registered", "needed"), [(75, 3, 3), (75, 4, 3), (50, 3, 2), (1, 100, 1), (1, 0, 1), (100, 7, 7)]
)
def test_the_floor_is_rounded_up_and_never_none(percent: int, registered: int, needed: int) -> None:
    assert predicates.floor(percent, registered) == needed


def test_health_is_judged_by_what_is_registered_not_by_what_the_edge_knows() -> None:
    seen = edges(edge_1=ack(1, healthy={"C": 1}, members={"C": 1}), edge_2=ack(1, healthy={"C": 3}))
    assert said(predicates.healthy(seen, "C", 3, 75)) == ["edge-1: sees 1 of 3 healthy C, needs 3"]
    assert said(predicates.ready(seen, 1, "C", 0, 75)) == ["C: no host has registered it"]
    assert said(predicates.ready(seen, 2, "C", 3, 75)) == ["edge-1: epoch 1 of 2", "edge-2: epoch 1 of 2"]
