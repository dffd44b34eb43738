"""Each promise has a record that breaks it, and one beside it that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pinrail.demo.check import (
    Counts,
    EdgeCounts,
    Judgement,
    Mark,
    Promise,
    Release,
    Way,
    compare,
    judge,
    promises,
    window,
)
from pinrail.demo.observe import Kind, Log, Record

# X was there before. A replaced nothing that anyone loaded; B withdrew X; C withdrew A; then back to B.
A = Release("A", "a", began=10, ended=15, withdrawn=("w",))
B = Release("B", "b", began=20, ended=25, withdrawn=("x",))
C = Release("C", "c", began=30, ended=35, withdrawn=("a",))
BACK = Release("rollback", "b", began=40, ended=40.1, rollback=True)
ALL = (A, B, C, BACK)


def document(
    at: float, build: str | None, *, client: int = 1, page: int = 1, generation: int | None = None, **more: object
) -> Record:
    record = Record(
        began=at - 0.01,
        ended=at,
        client=client,
        page=page,
        kind=Kind.DOCUMENT,
        edge="edge-1",
        status=200,
        body=build,
        said=build,
        verdict="current",
        generation=generation,
    )
    return replace(record, **more)  # type: ignore[arg-type]


def feed(at: float, pin: str, build: str | None, *, client: int = 1, page: int = 1, **more: object) -> Record:
    record = Record(
        began=at - 0.01,
        ended=at,
        client=client,
        page=page,
        kind=Kind.FEED,
        edge="edge-1",
        pin=pin,
        status=200,
        body=build,
        said=build,
        verdict="current",
    )
    return replace(record, **more)  # type: ignore[arg-type]


def marks(*records: Record, way: Way = Way.PINNED) -> list[set[str]]:
    return [{m.value for m in found} for found in judge(records, ALL, "x", way).marks]


# --- single requests ---------------------------------------------------------------------------------------------


def test_a_page_answered_by_its_own_version_has_nothing_said_of_it() -> None:
    assert marks(document(1, "x"), feed(2, "x", "x")) == [set(), set()]


def test_another_version_while_its_own_was_served_is_a_fault() -> None:
    assert marks(feed(12, "x", "a")) == [{"fault"}]


def test_the_body_counts_not_the_header() -> None:
    assert marks(feed(12, "x", "a", said="x")) == [{"fault"}]


def test_body_and_header_that_disagree_are_a_fault_also_on_a_document() -> None:
    assert marks(document(12, "x", said="a")) == [{"fault"}]
    assert marks(feed(12, "x", "x", said="a")) == [{"fault"}]


def test_an_answer_without_a_build_in_its_body_is_judged_by_its_header() -> None:
    assert marks(feed(12, "x", None, said="a")) == [{"fault"}]
    assert marks(feed(12, "x", None, said="x")) == [set()]


def test_retired_after_the_withdrawal_is_a_forced_move() -> None:
    assert marks(feed(21, "x", "a", verdict="retired")) == [{"forced"}]


def test_retired_before_any_withdrawal_is_a_fault() -> None:
    assert marks(feed(19, "x", "a", verdict="retired")) == [{"forced", "fault"}]


def test_retired_of_a_version_that_no_release_withdrew_is_a_fault() -> None:
    assert marks(feed(45, "c", "b", verdict="retired")) == [{"forced", "fault"}]


def test_retired_and_yet_answered_by_that_version_is_a_fault() -> None:
    assert marks(feed(21, "x", "x", verdict="retired")) == [{"forced", "fault"}]


def test_a_withdrawn_version_that_still_answers_is_no_fault() -> None:
    """An edge that has not applied the withdrawal yet still serves it: it is still installed."""
    assert marks(feed(21, "x", "x")) == [set()]


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 0, "body": None, "said": None, "verdict": None, "error": "connection: refused"},
        {"status": 0, "body": None, "said": None, "verdict": None, "error": "no answer in time"},
        {"status": 200, "body": None, "error": "truncated: not enough data"},
        {"status": 200, "error": "the body that arrived is not the one that was sent"},
        {"status": 500, "body": None},
        {"status": 502, "body": None},
        {"status": 503, "body": None},
        {"status": 409, "body": None},
    ],
)
def test_no_answer_a_wrong_one_or_half_of_one_failed(broken: dict[str, object]) -> None:
    assert marks(feed(12, "x", "x", **broken)) == [{"failed"}]


def test_a_missing_asset_failed() -> None:
    assert marks(feed(12, "x", None, kind=Kind.ASSET, status=404)) == [{"failed"}]


def test_an_error_page_of_another_version_is_both_failed_and_a_fault() -> None:
    assert marks(feed(12, "x", None, said="a", status=500)) == [{"failed", "fault"}]


# --- rolling: any mismatch is a flip-flop ------------------------------------------------------------------------


def test_in_a_rolling_deploy_every_foreign_answer_is_a_flip_flop() -> None:
    found = marks(feed(12, "x", "a"), feed(12, "x", "x"), feed(12, "a", "x"), way=Way.ROLLING)
    assert found == [{"fault"}, set(), {"fault"}]


def test_in_a_rolling_deploy_a_missing_asset_of_another_version_is_a_flip_flop_and_failed() -> None:
    missing = feed(12, "x", None, said="a", kind=Kind.ASSET, status=404)
    assert marks(missing, way=Way.ROLLING) == [{"fault", "failed"}]


def test_in_a_rolling_deploy_nothing_is_forced() -> None:
    assert marks(feed(21, "x", "a", verdict="retired"), way=Way.ROLLING) == [{"fault"}]


# --- documents never go back -------------------------------------------------------------------------------------


def test_documents_that_follow_the_defaults_do_not_go_back() -> None:
    seen = [document(t, b, generation=g) for t, b, g in [(1, "x", 1), (16, "a", 2), (26, "b", 3), (36, "c", 4)]]
    assert marks(*seen) == [set()] * 4


def test_an_older_document_than_before_went_back() -> None:
    assert marks(document(16, "a"), document(17, "x")) == [set(), {"back"}]


def test_another_client_may_still_have_the_older_one() -> None:
    assert marks(document(16, "a", client=1), document(17, "x", client=2)) == [set(), set()]


def test_back_to_the_older_one_after_a_rollback_is_right() -> None:
    assert marks(document(36, "c", generation=4), document(41, "b", generation=5)) == [set(), set()]


def test_back_to_the_older_one_before_the_rollback_began_is_not() -> None:
    assert marks(document(36, "c"), document(39, "b")) == [set(), {"back"}]


def test_after_the_rollback_the_newer_one_does_not_come_again() -> None:
    seen = marks(document(36, "c"), document(41, "b"), document(42, "c"))
    assert seen == [set(), set(), {"back"}]


def test_the_rolled_back_build_seen_on_both_sides_of_the_release_is_right() -> None:
    assert marks(document(26, "b"), document(36, "c"), document(41, "b"), document(42, "b")) == [set()] * 4


def test_a_falling_generation_went_back_whatever_the_body_says() -> None:
    assert marks(document(26, "b", generation=3), document(27, "b", generation=2)) == [set(), {"back"}]


def test_a_lower_generation_is_measured_against_the_highest_seen() -> None:
    seen = [document(t, "b", generation=g) for t, g in [(26, 3), (27, None), (28, 2), (29, 3)]]
    assert marks(*seen) == [set(), set(), {"back"}, set()]


def test_a_build_that_was_never_the_default_is_older_than_all() -> None:
    assert marks(document(1, "x"), document(2, "w")) == [set(), {"back"}]
    assert marks(document(2, "w"), document(3, "x")) == [set(), set()]


def test_only_documents_can_go_back() -> None:
    assert marks(document(36, "c"), feed(37, "b", "b")) == [set(), set()]


def test_a_rolling_deploy_goes_back_too() -> None:
    assert marks(document(12, "a"), document(13, "x"), way=Way.ROLLING) == [set(), {"back"}]


# --- counting by release -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "index"), [(0, 0), (10, 0), (19.9, 0), (20, 1), (31, 2), (40, 3), (99, 3)])
def test_a_request_belongs_to_the_release_whose_time_it_was(at: float, index: int) -> None:
    assert window(at, ALL) == index


def test_counts_add_up() -> None:
    records = [
        document(1, "x"),
        feed(2, "x", "x"),
        feed(12, "x", "a"),
        document(16, "a", page=2),
        feed(21, "x", "a", client=2, verdict="retired"),
        feed(22, "a", None, page=2, status=503, said=None),
        document(26, "b", page=3),
        document(27, "a", page=4),
    ]
    judged = judge(records, ALL, "x", Way.PINNED)
    assert judged.counts == (
        Counts(requests=4, documents=2, fault=1, reached=1),
        Counts(requests=4, documents=2, forced=1, back=1, failed=1, reached=1),
        Counts(),
        Counts(),
    )


def test_requests_that_were_out_together_are_one_move() -> None:
    records = [feed(21, "x", "a", verdict="retired"), feed(21.1, "x", "a", verdict="retired", kind=Kind.SLOW)]
    counts = judge(records, ALL, "x", Way.PINNED).counts[1]
    assert (counts.forced, counts.forced_twice) == (1, 0)


def test_a_second_page_moved_in_the_same_release_is_a_second_move() -> None:
    records = [feed(21, "x", "a", verdict="retired"), feed(22, "x", "a", page=2, verdict="retired")]
    counts = judge(records, ALL, "x", Way.PINNED).counts[1]
    assert (counts.forced, counts.forced_twice) == (2, 1)


def test_one_move_in_each_of_two_releases_is_one_a_release() -> None:
    records = [feed(21, "x", "a", verdict="retired"), feed(31, "a", "b", page=2, verdict="retired")]
    assert [c.forced_twice for c in judge(records, ALL, "x", Way.PINNED).counts] == [0, 0, 0, 0]


def test_nothing_seen_is_nothing_counted() -> None:
    assert judge([], ALL, "x", Way.PINNED) == Judgement((), (Counts(),) * 4)
    assert judge([feed(1, "x", "x")], [], "x", Way.PINNED).counts == ()


# --- each promise, kept and broken -------------------------------------------------------------------------------

GOOD = [
    document(16, "a", generation=2),
    feed(17, "a", "a"),
    document(26, "b", page=2, generation=3),
    feed(27, "x", "a", client=2, verdict="retired"),
    document(36, "c", page=3, generation=4),
    feed(37, "c", "c", page=3),
    document(41, "b", page=4, generation=5),
]


def broken(
    *more: Record,
    records: list[Record] | None = None,
    releases: tuple[Release, ...] = ALL,
    different: tuple[str, ...] = (),
) -> dict[str, str]:
    seen = sorted([*(GOOD if records is None else records), *more], key=lambda r: r.ended)
    found: list[Promise] = promises(judge(seen, releases, "x", Way.PINNED), releases, different)
    return {p.name: p.broken for p in found if p.broken is not None}


def test_all_promises_hold() -> None:
    assert broken() == {}


def test_promise_fault() -> None:
    assert broken(feed(32, "b", "c")) == {"fault": "1 answered by the wrong version during C (c)"}


def test_promise_back() -> None:
    assert broken(document(36.5, "b", page=5)) == {"back": "1 went back during C (c)"}


def test_promise_failed() -> None:
    assert broken(feed(21, "a", None, status=503)) == {"failed": "1 failed during B (b)"}


def test_promise_forced() -> None:
    again = feed(28, "x", "a", client=2, page=9, verdict="retired")
    assert broken(again) == {"forced": "1 moved more than once during B (b)"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (feed(42, "c", "b", client=3), "1 answered by the wrong version during rollback (b)"),
        (document(43, "c", page=6), "1 went back during rollback (b)"),
        (feed(42, "c", None, client=3, status=502), "1 failed during rollback (b)"),
    ],
)
def test_promise_rollback(record: Record, words: str) -> None:
    assert broken(record) == {"rollback": words}


def test_promise_rollback_that_forces_twice() -> None:
    twice = [feed(42 + n, "x", "b", client=3, page=n, verdict="retired") for n in range(2)]
    assert broken(*twice) == {"rollback": "1 moved more than once during rollback (b)"}


def test_promise_rollback_is_broken_where_there_was_none() -> None:
    assert broken(records=GOOD[:-1], releases=ALL[:3]) == {"rollback": "there was none"}


def test_promise_finished() -> None:
    late = (A, B, replace(C, ended=None, error="stalled: edge-2 is missing"), BACK)
    assert broken(releases=late) == {"finished": "C (c) did not finish: stalled: edge-2 is missing"}


def test_promise_finished_needs_pages_of_the_release_to_have_come() -> None:
    without = [r for r in GOOD if not (r.kind is Kind.DOCUMENT and r.body == "c")]
    assert broken(records=without) == {"finished": "no client was given a page of C (c)"}


def test_promises_are_not_kept_by_doing_nothing() -> None:
    assert broken(records=[], releases=()) == {"rollback": "there was none", "finished": "there was none"}


def test_promise_counters() -> None:
    assert broken(different=("pinned: edge-1 counted 3 requests, clients sent it 4",)) == {
        "counters": "pinned: edge-1 counted 3 requests, clients sent it 4"
    }


# --- the edges' counters -----------------------------------------------------------------------------------------


def difference(counted: dict[str, EdgeCounts], *records: Record) -> list[str]:
    return compare(Way.PINNED, records, judge(records, ALL, "x", Way.PINNED), counted)


SEEN = (document(1, "x"), feed(2, "x", "x"), feed(21, "x", "a", verdict="retired"))
TRUE = EdgeCounts(3, {"default": 1, "exact": 1, "forced": 1}, flips=1)


def test_the_same_on_both_sides_is_no_difference() -> None:
    assert difference({"edge-1": TRUE}, *SEEN) == []


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        (replace(TRUE, requests=2), ["pinned: edge-1 counted 2 requests, clients sent it 3"]),
        (replace(TRUE, requests=4), ["pinned: edge-1 counted 4 requests, clients sent it 3"]),
        (
            replace(TRUE, outcomes={"forced": 0}, flips=0),
            ["pinned: edge-1 counted 0 forced, clients saw 1", "pinned: edge-1 counted 0 flips, clients saw 1"],
        ),
        (
            replace(TRUE, outcomes={"forced": 1, "fault": 1}, flips=2),
            ["pinned: edge-1 counted 1 fault, clients saw 0", "pinned: edge-1 counted 2 flips, clients saw 1"],
        ),
        (replace(TRUE, outcomes={"forced": 1, "back": 1}), ["pinned: edge-1 counted 1 back, clients saw 0"]),
    ],
)
def test_a_difference_is_said(counted: EdgeCounts, words: list[str]) -> None:
    assert difference({"edge-1": counted}, *SEEN) == words


def test_an_edge_that_says_nothing_is_a_difference() -> None:
    assert difference({}, *SEEN) == ["pinned: edge-1 does not tell its counters"]


def test_an_edge_that_counted_what_nobody_sent_is_a_difference() -> None:
    assert difference({"edge-1": TRUE, "edge-2": EdgeCounts(1)}, *SEEN) == [
        "pinned: edge-2 counted 1 requests, clients sent it 0"
    ]


def test_a_request_without_an_answer_may_or_may_not_have_been_counted() -> None:
    lost = feed(22, "a", None, status=0, said=None, verdict=None, error="connection: reset")
    assert difference({"edge-1": TRUE}, *SEEN, lost) == []
    assert difference({"edge-1": replace(TRUE, requests=4)}, *SEEN, lost) == []
    assert difference({"edge-1": replace(TRUE, requests=5)}, *SEEN, lost) != []


def test_what_an_edge_calls_forced_is_compared_with_what_it_told_the_client() -> None:
    """Told to move too early: a fault by the timeline, forced by the edge's own words; its counting is right."""
    early = feed(5, "x", "a", verdict="retired")
    assert difference({"edge-1": EdgeCounts(1, {"forced": 1}, 1)}, early) == []


def test_without_pins_edges_are_not_asked_what_they_cannot_know() -> None:
    records = (document(12, "a"), document(13, "x"), feed(14, "x", "a"))
    judged = judge(records, ALL, "x", Way.ROLLING)
    assert Mark.BACK in judged.marks[1]
    assert compare(Way.ROLLING, records, judged, {"edge-1": EdgeCounts(3, {"default": 2, "fault": 1}, 1)}) == []
    assert compare(Way.ROLLING, records, judged, {"edge-1": EdgeCounts(3, {"default": 2, "exact": 1}, 0)}) == [
        "rolling: edge-1 counted 0 fault, clients saw 1",
        "rolling: edge-1 counted 0 flips, clients saw 1",
    ]


def test_the_log_finds_what_is_recent() -> None:
    log = Log()
    for record in SEEN:
        log.add(record)
    assert [r.ended for r in log.recent(2)] == [21, 2]


def test_marks_are_words() -> None:
    assert {m.value for m in Mark} == {"forced", "fault", "back", "failed"}
