"""What a client saw: one compact record a request. Pure.

Times are seconds since the way's load began, by one process's monotonic clock. Nothing here judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    DOCUMENT = "document"
    ASSET = "asset"
    FEED = "feed"
    SAVE = "save"
    SLOW = "slow"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Record:
    """One request of one client, and the answer it got."""

    began: float
    ended: float
    client: int
    #: Which page load of that client the request belongs to.
    page: int
    kind: Kind
    edge: str
    #: The build that the request asked for: its page's; None for a document.
    pin: str | None = None
    #: Of the cookie: a document's own, else the one that its page came with. None where there was none.
    generation: int | None = None
    #: 0 where no answer came.
    status: int = 0
    #: The build that the body itself names; None where it names none.
    body: str | None = None
    #: The headers ``x-deployment-id`` and ``x-deployment-status``.
    said: str | None = None
    verdict: str | None = None
    #: Why the answer is no answer: connection, timeout, truncated, wrong content. None when it is one.
    error: str | None = None

    @property
    def answered(self) -> str | None:
        """The build that answered: what the body says, or else the header."""
        return self.body or self.said


@dataclass
class Log:
    """The records of one way, in the order in which the requests ended."""

    records: list[Record] = field(default_factory=list)
    #: Requests that are out now; for progress only.
    open: int = 0

    def add(self, record: Record) -> None:
        self.records.append(record)

    def recent(self, since: float) -> list[Record]:
        """The records that ended at or after ``since``, newest first."""
        found = []
        for record in reversed(self.records):
            if record.ended < since:
                break
            found.append(record)
        return found
