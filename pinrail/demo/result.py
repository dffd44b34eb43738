"""What a demo found, both ways, and the object that ``--json`` prints. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pinrail.demo.check import Counts, Judgement, Mark, Promise, Release
from pinrail.demo.observe import Record


@dataclass(frozen=True)
class Way:
    """One way of releasing, as clients saw it."""

    service: str
    #: The default before its first release.
    base: str
    releases: tuple[Release, ...]
    records: tuple[Record, ...]
    judged: Judgement
    #: How the edges' counters differ from what the clients saw; empty when they do not.
    different: tuple[str, ...] = ()

    @property
    def total(self) -> Counts:
        counts = [asdict(c) for c in self.judged.counts]
        return Counts(**{what: sum(c[what] for c in counts) for what in asdict(Counts())})

    @property
    def seconds(self) -> float:
        """Length of the load."""
        return max((r.ended for r in self.records), default=0.0)

    @property
    def failures(self) -> dict[str, int]:
        """Why requests failed, the most frequent first."""
        failed = (r for r, marks in zip(self.records, self.judged.marks, strict=True) if Mark.FAILED in marks)
        return dict(Counter(f"{r.kind} {r.error or r.status}" for r in failed).most_common())

    def per_second(self, mark: Mark) -> list[int]:
        """How often ``mark`` was seen in each second of the load."""
        buckets = [0] * (int(self.seconds) + 1)
        for record, marks in zip(self.records, self.judged.marks, strict=True):
            if mark in marks:
                buckets[int(record.ended)] += 1
        return buckets


@dataclass(frozen=True)
class Result:
    rolling: Way
    pinned: Way
    promises: tuple[Promise, ...]
    picture: Path | None = None

    @property
    def broken(self) -> list[Promise]:
        return [p for p in self.promises if p.broken is not None]

    @property
    def ok(self) -> bool:
        return not self.broken

    def as_json(self) -> dict[str, Any]:
        return {
            "rolling": way_as_json(self.rolling),
            "pinned": way_as_json(self.pinned),
            "ok": self.ok,
            "broken": [f"{p.name}: {p.sentence}: {p.broken}" for p in self.broken],
            "picture": str(self.picture) if self.picture else None,
        }


def way_as_json(way: Way) -> dict[str, Any]:
    return {
        "service": way.service,
        "releases": _releases(way.releases, way.judged.counts),
        "failures": way.failures,
        "differences": list(way.different),
    }


def _releases(releases: Sequence[Release], counts: Sequence[Counts]) -> list[dict[str, Any]]:
    return [
        {
            "release": release.name,
            "build": release.build,
            "requests": count.requests,
            "documents": count.documents,
            "forced": count.forced,
            "fault": count.fault,
            "back": count.back,
            "failed": count.failed,
            "seconds": None if release.ended is None else round(release.ended - release.began, 3),
            "steps": {name: round(seconds, 3) for name, seconds in release.steps.items()},
            "error": release.error,
        }
        for release, count in zip(releases, counts, strict=True)
    ]
