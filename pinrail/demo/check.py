"""The judge: from what clients saw and when releases happened to counts and broken promises. Pure.

It decides from bodies and headers only. The edges' own counters come in at one place, ``compare``, and there a
difference is a broken promise too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pinrail.demo.observe import Kind, Record


class Way(StrEnum):
    #: One mixed pool, pins ignored, hosts restarted a wave at a time: an ordinary rolling deploy.
    ROLLING = "rolling"
    PINNED = "pinned"


@dataclass(frozen=True)
class Release:
    """One change of version, by the clock of the records."""

    name: str
    build: str
    began: float
    #: None: it did not finish; ``error`` then says why.
    ended: float | None = None
    #: Versions that it took out of service.
    withdrawn: tuple[str, ...] = ()
    rollback: bool = False
    steps: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


class Mark(StrEnum):
    """What can be said of one request; a request may carry several."""

    FORCED = "forced"
    FAULT = "fault"
    BACK = "back"
    FAILED = "failed"


@dataclass(frozen=True)
class Counts:
    """One release as clients saw it: from its beginning to the next one's."""

    requests: int = 0
    documents: int = 0
    #: Pages that were told to move to another version.
    forced: int = 0
    fault: int = 0
    back: int = 0
    failed: int = 0
    #: Clients that were forced more than once.
    forced_twice: int = 0
    #: Documents of the release's own build.
    reached: int = 0


@dataclass(frozen=True)
class Promise:
    name: str
    sentence: str
    #: Why it does not hold; None when it does.
    broken: str | None = None


@dataclass(frozen=True)
class Judgement:
    """One way, judged: marks by record (same order as the records), counts by release (same order as releases)."""

    marks: tuple[frozenset[Mark], ...]
    counts: tuple[Counts, ...]


def judge(records: Sequence[Record], releases: Sequence[Release], base: str, way: Way) -> Judgement:
    """``base`` is the build that was the default before the first release. ``records`` in the order they ended."""
    back = _went_back(records, releases, base)
    marks = tuple(_marks(r, releases, way) | ({Mark.BACK} if i in back else frozenset()) for i, r in enumerate(records))
    groups: dict[int, list[tuple[Record, frozenset[Mark]]]] = defaultdict(list)
    for record, marked in zip(records, marks, strict=True):
        groups[window(record.ended, releases)].append((record, marked))
    return Judgement(marks, tuple(_count(groups[i], release) for i, release in enumerate(releases)))


def window(at: float, releases: Sequence[Release]) -> int:
    """Index of the release whose time it was; what is before the first belongs to the first."""
    return max(0, sum(1 for r in releases if r.began <= at) - 1)


def _marks(record: Record, releases: Sequence[Release], way: Way) -> frozenset[Mark]:
    found = set()
    if failed(record):
        found.add(Mark.FAILED)
    if way is Way.ROLLING:
        if record.pin is not None and record.answered not in (None, record.pin):
            found.add(Mark.FAULT)
        return frozenset(found)
    if record.verdict == "retired" and record.pin is not None and record.status:
        found.add(Mark.FORCED)
    if _fault(record, releases):
        found.add(Mark.FAULT)
    return frozenset(found)


def failed(record: Record) -> bool:
    """No answer, a wrong one, or half of one: nothing that these browsers send may be refused or missing."""
    return record.error is not None or record.status != 200


def _fault(record: Record, releases: Sequence[Release]) -> bool:
    """The version that the page came from was served, yet another one answered; or body and headers disagree."""
    if record.body and record.said and record.body != record.said:
        return True
    if record.pin is None or record.answered is None:
        return False
    if record.verdict == "retired":
        # Told to move although nothing had withdrawn its version, or told to move and yet answered by it.
        return record.answered == record.pin or not _withdrawn(record.pin, record.ended, releases)
    return record.answered != record.pin


def _withdrawn(build: str, by: float, releases: Sequence[Release]) -> bool:
    return any(build in r.withdrawn and r.began <= by for r in releases)


def _went_back(records: Sequence[Record], releases: Sequence[Release], base: str) -> set[int]:
    """Indices of documents that are older than one the same client saw before.

    Two witnesses, either is enough. The cookie: its generation grows with every change of default, a rollback
    included, so it may never fall. The body: a client's documents must follow the order of the defaults (base, the
    first release's build, the second's ...; a rollback's build stands there a second time), so each must fit at or
    after the place of the one before, and not at a place that had not begun. A build that has no place is older still.
    """
    order = [(base, float("-inf")), *((r.build, r.began) for r in releases)]
    place: dict[int, int] = {}
    generation: dict[int, int] = {}
    back = set()
    for i, record in enumerate(records):
        if record.kind is not Kind.DOCUMENT or record.body is None:
            continue
        at = place.get(record.client, 0)
        fits = [j for j in range(at, len(order)) if order[j][0] == record.body and order[j][1] <= record.ended]
        if fits:
            place[record.client] = fits[0]
        elif record.client in place:
            back.add(i)
        if record.generation is not None:
            if record.generation < generation.get(record.client, record.generation):
                back.add(i)
            generation[record.client] = max(record.generation, generation.get(record.client, 0))
    return back


def _count(marked: Iterable[tuple[Record, frozenset[Mark]]], release: Release) -> Counts:
    total: Counter[str] = Counter()
    moves: dict[int, set[int]] = defaultdict(set)
    for record, marks in marked:
        total["requests"] += 1
        total.update(m.value for m in marks if m is not Mark.FORCED)
        if record.kind is Kind.DOCUMENT:
            total["documents"] += 1
            total["reached"] += record.body == release.build
        if Mark.FORCED in marks:
            # Requests that were out together are one move of their page.
            moves[record.client].add(record.page)
    return Counts(
        requests=total["requests"],
        documents=total["documents"],
        forced=sum(len(pages) for pages in moves.values()),
        fault=total["fault"],
        back=total["back"],
        failed=total["failed"],
        forced_twice=sum(1 for pages in moves.values() if len(pages) > 1),
        reached=total["reached"],
    )


# --- the promises ------------------------------------------------------------------------------------------------


def promises(judged: Judgement, releases: Sequence[Release], different: Sequence[str]) -> list[Promise]:
    """What Pinrail promises of the pinned way; ``different`` is what ``compare`` found, for both ways."""
    pairs = [(r, c) for r, c in zip(releases, judged.counts, strict=True)]
    deploys = [(r, c) for r, c in pairs if not r.rollback]
    rollbacks = [(r, c) for r, c in pairs if r.rollback]
    return [
        Promise(
            "fault",
            "no request was answered by another version while its own was being served",
            _where(deploys, "fault", "answered by the wrong version"),
        ),
        Promise("back", "no client was given an older document than it had", _where(deploys, "back", "went back")),
        Promise("failed", "no request failed", _where(deploys, "failed", "failed")),
        Promise(
            "forced",
            "no client was moved more than once by one release",
            _where(deploys, "forced_twice", "moved more than once"),
        ),
        Promise("rollback", "the same held for a rollback under load", _rollback(rollbacks)),
        Promise("finished", "every release finished and its pages reached the clients", _finished(pairs)),
        Promise("counters", "the edges counted what the clients saw", "; ".join(different) or None),
    ]


def _where(pairs: Sequence[tuple[Release, Counts]], what: str, words: str) -> str | None:
    found = [f"{n} {words} during {r.name} ({r.build})" for r, c in pairs if (n := getattr(c, what))]
    return ", ".join(found) or None


def _rollback(pairs: Sequence[tuple[Release, Counts]]) -> str | None:
    if not pairs:
        return "there was none"
    # Nothing is withdrawn by a rollback, so it may not force anybody.
    whats = {
        "fault": "answered by the wrong version",
        "back": "went back",
        "failed": "failed",
        "forced_twice": "moved more than once",
    }
    return ", ".join(filter(None, (_where(pairs, what, words) for what, words in whats.items()))) or None


def _finished(pairs: Sequence[tuple[Release, Counts]]) -> str | None:
    if not pairs:
        return "there was none"
    found = []
    for release, counts in pairs:
        if release.ended is None:
            found.append(f"{release.name} ({release.build}) did not finish: {release.error or 'it was interrupted'}")
        elif not counts.reached:
            found.append(f"no client was given a page of {release.name} ({release.build})")
    return "; ".join(found) or None


# --- the edges' own counters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeCounts:
    """What one edge says of one service: requests in all and by outcome, flips by cause."""

    requests: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    flips: int = 0


def expected(way: Way, records: Sequence[Record], judged: Judgement) -> dict[str, EdgeCounts]:
    """What each edge should have counted, from what the clients saw of it."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for record, marks in zip(records, judged.marks, strict=True):
        count = outcomes[record.edge]
        count["requests"] += 1
        count["forced"] += Mark.FORCED in marks
        # An edge that says "retired" of a version too early calls that forced: it has told the client.
        count["fault"] += Mark.FAULT in marks and Mark.FORCED not in marks
        count["back"] += Mark.BACK in marks
    # Without pins there are no cookies, so an edge cannot know which document is an older one.
    told = ("fault",) if way is Way.ROLLING else ("forced", "fault", "back")
    return {
        edge: EdgeCounts(c["requests"], {what: c[what] for what in told}, sum(c[what] for what in told))
        for edge, c in outcomes.items()
    }


def compare(way: Way, records: Sequence[Record], judged: Judgement, counted: Mapping[str, EdgeCounts]) -> list[str]:
    """The differences, a sentence each. A request that got no answer at all may or may not have reached its edge."""
    lost = Counter(r.edge for r in records if not r.status)
    found = []
    wanted = expected(way, records, judged)
    for edge in sorted({*wanted, *counted}):
        saw, says = wanted.get(edge, EdgeCounts()), counted.get(edge)
        if says is None:
            found.append(f"{way}: {edge} does not tell its counters")
            continue
        if not saw.requests - lost[edge] <= says.requests <= saw.requests:
            found.append(f"{way}: {edge} counted {says.requests} requests, clients sent it {saw.requests}")
        found += [
            f"{way}: {edge} counted {says.outcomes.get(what, 0)} {what}, clients saw {number}"
            for what, number in saw.outcomes.items()
            if not number <= says.outcomes.get(what, 0) <= number + lost[edge]
        ]
        if not saw.flips <= says.flips <= saw.flips + lost[edge]:
            found.append(f"{way}: {edge} counted {says.flips} flips, clients saw {saw.flips}")
    return found
