"""The users, inside a container: the demo's browsers, all through the load balancer. Imports nothing but Pinrail.

Is told what happens by lines of JSON on stdin, and answers each with one. What counts: a request is *excused* when it
was under way on the side that the test had just made unreachable (an edge that the load balancer had not given up yet,
a host that the edges had not), and got no good answer; its client asks again, and that answer counts. Nothing else is.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from pinrail.containers.releases import target
from pinrail.demo import check
from pinrail.demo.browser import Browser, Pace, Page, connections
from pinrail.demo.check import Mark, Release, Way
from pinrail.demo.observe import Kind, Log, Record

THINK = 0.15


@dataclass
class Injury:
    """Until it is noticed, requests may be under way to what cannot be reached."""

    began: float
    #: Seconds that may take; None: until it is healed.
    noticed: float | None
    #: The edge that it is about, or the balancer; None: any edge may have sent a request there.
    edge: str | None

    def excuses(self, record: Record) -> bool:
        end = float("inf") if self.noticed is None else self.began + self.noticed
        during = record.ended >= self.began and record.began <= end
        return during and (self.edge is None or record.edge in (self.edge, "balancer"))


class _User(Browser):
    crowd: Crowd

    async def _fetch(
        self,
        kind: Kind,
        method: str,
        path: str,
        headers: dict[str, str],
        page: Page | None,
        body: bytes | None = None,
    ) -> tuple[Record, Any]:
        for _ in range(100):
            record, answer = await super()._fetch(kind, method, path, dict(headers), page, body)
            if record.status == 200 and record.error is None:
                return record, answer
            if not any(i.excuses(record) for i in self.crowd.injuries):
                return record, answer
            self.crowd.excused.append(record)
            await asyncio.sleep(0.02)
        return replace(record, error=f"nobody took it: {record.error}"), None


class Crowd:
    def __init__(self, balancer: str, base: str, browsers: int) -> None:
        self._target, self._base, self._browsers = target(balancer), base, browsers
        self._origin = time.monotonic()
        self._log = Log()
        self._releases: list[Release] = []
        self.injuries: list[Injury] = []
        self.excused: list[Record] = []
        self._stop = asyncio.Event()

    def clock(self) -> float:
        return time.monotonic() - self._origin

    async def run(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with connections() as session, asyncio.TaskGroup() as tasks:
            for n in range(self._browsers):
                rng = random.Random(n)
                pace = Pace(THINK, rng)
                user = _User(n, self._target, session, self._log, clock=self.clock, pace=pace, rng=rng)
                user.crowd = self
                tasks.create_task(user.run(self._stop))
            while line := await reader.readline():
                sys.stdout.write(json.dumps(self._told(json.loads(line))) + "\n")
                sys.stdout.flush()
            self._stop.set()

    def _told(self, word: dict[str, Any]) -> Any:
        match word.pop("do"):
            case "clock":
                return {"clock": self.clock(), "requests": len(self._log.records), "excused": len(self.excused)}
            case "release":
                self._releases.append(Release(**word | {"withdrawn": tuple(word["withdrawn"])}))
            case "hurt":
                self.injuries.append(Injury(self.clock(), **word))
            case "heal":
                for injury in self.injuries:
                    injury.noticed = self.clock() - injury.began if injury.noticed is None else injury.noticed
            case "judge":
                return self._judged(**word)
            case other:
                raise ValueError(other)
        return {}

    def _judged(self, requests: int, excused: int) -> dict[str, Any]:
        """What came after that many of either."""
        releases = self._releases or [Release("", self._base, 0.0, 0.0)]
        # All of it: whether a client went back shows only beside what it had before.
        judged = check.judge(self._log.records, releases, self._base, Way.PINNED)
        pairs = list(zip(self._log.records, judged.marks, strict=True))[requests:]
        broken = [(r, m - {Mark.FORCED}) for r, m in pairs if m - {Mark.FORCED}]
        return {
            "requests": len(pairs),
            "slowest": round(max((r.ended - r.began for r, _ in pairs), default=0.0), 2),
            "edges": dict(Counter(r.edge for r, _ in pairs)),
            "forced": sum(Mark.FORCED in m for _, m in pairs),
            "excused": len(self.excused) - excused,
            "why": sorted({r.error or str(r.status) for r in self.excused[excused:]}),
            "broken": [f"{', '.join(sorted(m))}: {asdict(r)}" for r, m in broken],
        }


if __name__ == "__main__":
    asyncio.run(Crowd(sys.argv[1], sys.argv[2], int(sys.argv[3])).run())
