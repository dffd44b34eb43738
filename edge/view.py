"""What ZooKeeper holds for an edge, read into values. Reads only; what to believe of it is decided elsewhere.

Members are read when the list of children changed, only the new ones, all in flight at once; and all of them again now
and then, because a host may change its weight in place.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import ValidationError

from edge import members
from edge.members import Host
from fleet import paths
from fleet.config import sentence
from fleet.model import Member, Plan, ServiceConfig, decode
from fleet.names import BadName, service_name
from fleet.zk import Node, ZooKeeper

#: Seconds between full reads of a server set.
_AGAIN = 10.0


@dataclass(frozen=True)
class Seen:
    """One service as ZooKeeper has it. ``config`` or ``plan`` is None where it is missing or malformed (``fault``)."""

    config: ServiceConfig | None
    plan: Plan | None
    sets: dict[str, tuple[Host, ...]]
    fault: str | None = None


class View:
    def __init__(self, zk: ZooKeeper) -> None:
        self._zk = zk
        self._members: dict[str, Node] = {}
        self._read_all = 0.0

    def services(self) -> dict[str, Seen]:
        """Every service; those that have neither config nor plan yet are left out. Raises ZooKeeperTrouble."""
        now = time.monotonic()
        fresh = now - self._read_all >= _AGAIN
        if fresh:
            self._read_all = now
        used: set[str] = set()
        found = {s: self._service(s, used, fresh) for s in self._zk.children(paths.SERVICES) if _valid(s)}
        self._members = {p: n for p, n in self._members.items() if p in used}
        return {s: seen for s, seen in found.items() if seen is not None}

    def removed(self) -> frozenset[str]:
        """Services that an operator removed. Raises ZooKeeperTrouble."""
        return frozenset(self._zk.children(paths.REMOVED))

    def _service(self, s: str, used: set[str], fresh: bool) -> Seen | None:
        raw_config, raw_plan = self._zk.get(paths.config(s)), self._zk.get(paths.plan(s))
        if raw_config is None and raw_plan is None:
            return None
        faults = []
        config: ServiceConfig | None = ServiceConfig()
        plan: Plan | None = None
        try:
            config = (decode(ServiceConfig, raw_config.data) if raw_config else None) or ServiceConfig()
        except ValidationError as e:
            config = None
            faults.append(f"the config of {s} is malformed: {sentence(e)}")
        try:
            plan = decode(Plan, raw_plan.data) if raw_plan else None
        except ValidationError as e:
            faults.append(f"the plan of {s} is malformed: {sentence(e)}")
        sets = {v: self._set(s, v, used, fresh) for v in members.wanted(plan)} if plan else {}
        return Seen(config, plan, sets, "; ".join(faults) or None)

    def _set(self, s: str, version: str, used: set[str], fresh: bool) -> tuple[Host, ...]:
        names = self._zk.children(paths.serverset(s, version))
        wanted = [paths.member(s, version, n) for n in names]
        used.update(wanted)
        self._members |= self._zk.get_many([p for p in wanted if fresh or p not in self._members])
        return members.hosts(m for p in wanted if p in self._members and (m := _member(self._members[p])))


def _valid(name: str) -> bool:
    try:
        service_name(name)
    except BadName:
        return False
    return True


def _member(node: Node) -> Member | None:
    """A malformed member takes no requests; its host's own status says what is wrong with it."""
    try:
        return decode(Member, node.data)
    except ValidationError:
        return None
