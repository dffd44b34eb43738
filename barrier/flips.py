"""Flip-flops over time: the edges' cumulative counters in, what happened in each round out. Pure: told what time it is.

Bounded whatever an edge says: only known outcomes and causes of known services are kept, for the last hour.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, Field

#: Rounds that are kept; at one every five seconds that is an hour.
ROUNDS = 720
#: Steps of rollouts that are kept beside them, of one service.
MARKS = 200
#: What an edge may have counted as the outcome of a request, as far as this graph goes.
OUTCOMES = frozenset({"forced", "fault", "back"})
CAUSES = frozenset({"retired", "unknown", "gone", "generation", "newer", "stamp", "mixed"})

_REQUESTS = "pinrail_edge_requests_total"
_FLIPS = "pinrail_edge_flips_total"
_LINE = re.compile(rf"^({_REQUESTS}|{_FLIPS})\{{([^\n]*)\}} ([0-9.eE+-]+)$", re.MULTILINE)
_LABEL = re.compile(r'([a-z]+)="([^"\\\n]*)"')


class Series(NamedTuple):
    """One cumulative counter of one edge, of the many that are shown as ``what``."""

    service: str
    #: An outcome, ``requests`` for all of them, or a cause.
    what: str
    #: Its labels. Not their sum is followed: that falls when an edge forgets a version, and it was not restarted.
    of: str = ""


Counts = Mapping[Series, float]


class Round(BaseModel):
    """What all edges together counted in the seconds since the round before."""

    #: On the clock of this process, as ``now`` and a mark's ``at`` are.
    end: float
    seconds: float
    requests: float = 0
    forced: float = 0
    fault: float = 0
    back: float = 0
    #: Flip-flops by cause.
    causes: dict[str, float] = Field(default_factory=dict)
    #: Edges that did not answer.
    silent: int = 0


class Mark(BaseModel):
    """A step of a rollout, when this process saw it."""

    at: float
    rollout: int
    build: str
    state: str
    text: str


class Silent(BaseModel):
    """An edge whose counters are not in the graph, and why."""

    edge: str
    why: str


class FlipsView(BaseModel):
    """A window, or what is new in it since ``first``."""

    #: Names the window: with another one, everything known before is void.
    window: str
    #: Number of the first round that is given, and of the one that comes next.
    first: int
    next: int
    #: The clock of this process, in seconds.
    now: float
    rounds: list[Round]
    marks: list[Mark]
    silent: list[Silent]
    edges: int


def read(text: str, edge: str, services: Collection[str]) -> dict[Series, float]:
    """The counters in an edge's metrics; lines of another edge, another service or without sense are passed over."""
    found: defaultdict[Series, float] = defaultdict(float)
    for name, labels, value in _LINE.findall(text):
        said = dict(_LABEL.findall(labels))
        service, number = said.get("service", ""), _number(value)
        if said.get("edge") != edge or service not in services or number is None:
            continue
        if name == _FLIPS:
            if said.get("cause") in CAUSES:
                found[Series(service, said["cause"], labels)] += number
            continue
        found[Series(service, "requests", labels)] += number
        if said.get("outcome") in OUTCOMES:
            found[Series(service, said["outcome"], labels)] += number
    return dict(found)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value < 2**53 else None


class Window:
    """The last rounds of all services."""

    def __init__(self, name: str, now: float) -> None:
        self._name = name
        #: Rounds that were changed after they had been given out.
        self._revision = 0
        self._next = 0
        self._end = now
        self._rounds: deque[tuple[float, float, int]] = deque(maxlen=ROUNDS)  # end, seconds, silent edges
        self._counts: dict[str, deque[defaultdict[str, float]]] = {}
        self._marks: dict[str, deque[Mark]] = {}
        #: What each edge said last, and in which round.
        self._last: dict[str, tuple[int, Counts]] = {}
        self._silent: tuple[Silent, ...] = ()
        self._edges = 0

    def add(self, now: float, said: Mapping[str, Counts], silent: Iterable[Silent], services: Collection[str]) -> None:
        """One round: what each edge's counters stand at. The first word of an edge is where its counting begins."""
        self._silent = tuple(silent)
        self._edges = len(said) + len(self._silent)
        self._rounds.append((now, now - self._end, len(self._silent)))
        self._end = now
        number, self._next = self._next, self._next + 1
        for gone in self._counts.keys() - services:
            del self._counts[gone]
            self._marks.pop(gone, None)
        for service in services:
            filled = self._counts.setdefault(service, deque(maxlen=ROUNDS))
            filled.append(defaultdict(float))
            while len(filled) < len(self._rounds):  # of a service that is new
                filled.appendleft(defaultdict(float))
        for edge, counts in said.items():
            before = self._last.get(edge)
            if before is not None:
                self._spread(before[1], counts, number - before[0])
            self._last[edge] = (number, dict(counts))
        keep = said.keys() | {s.edge for s in self._silent}
        self._last = {e: v for e, v in self._last.items() if e in keep}

    def _spread(self, before: Counts, after: Counts, rounds: int) -> None:
        """What an edge counted while it was silent belongs, evenly, to the rounds in which it was."""
        rounds = min(rounds, len(self._rounds))
        if rounds > 1:
            self._revision += 1
        for series, value in after.items():
            was = before.get(series, 0)
            more = value - was if value >= was else value  # it counts from nought again after a restart
            if more > 0 and series.service in self._counts:
                filled = self._counts[series.service]
                for i in range(1, rounds + 1):
                    filled[-i][series.what] += more / rounds

    def mark(self, service: str, mark: Mark) -> None:
        self._marks.setdefault(service, deque(maxlen=MARKS)).append(mark)

    @property
    def key(self) -> tuple[str, int]:
        """What a reader has seen who has seen everything: which window, and the number of the next round."""
        return f"{self._name}.{self._revision}", self._next

    def view(self, service: str, now: float, seen: tuple[str, int] | None = None) -> FlipsView:
        """Everything of ``service``, or what is new to whoever has ``seen`` that much of this very window."""
        name, following = self.key
        oldest = following - len(self._rounds)
        first = max(oldest, min(seen[1], following)) if seen and seen[0] == name else oldest
        filled = self._counts.get(service) or [defaultdict[str, float](float) for _ in self._rounds]
        start = first - oldest
        rounds = [
            _round(*about, counts)
            for about, counts in zip(list(self._rounds)[start:], list(filled)[start:], strict=True)
        ]
        return FlipsView(
            window=name,
            first=first,
            next=following,
            now=now,
            rounds=rounds,
            marks=list(self._marks.get(service, ())),
            silent=list(self._silent),
            edges=self._edges,
        )


def _round(end: float, seconds: float, silent: int, counts: Mapping[str, float]) -> Round:
    return Round(
        end=round(end, 1),
        seconds=round(seconds, 1),
        silent=silent,
        requests=round(counts.get("requests", 0), 2),
        forced=round(counts.get("forced", 0), 2),
        fault=round(counts.get("fault", 0), 2),
        back=round(counts.get("back", 0), 2),
        causes={c: round(counts[c], 2) for c in sorted(CAUSES) if counts.get(c)},
    )
