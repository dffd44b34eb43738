"""What ZooKeeper holds for an edge, read into values. Reads only; what to believe of it is decided elsewhere.

Members are read when the list of children changed, only the new ones, all in flight at once; and all of them again now
and then, because a host may change its weight in place.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from edge import members
from edge.members import Host
from fleet import paths
from fleet.config import sentence
from fleet.model import Member, Plan, ServiceConfig, W, decode
from fleet.names import BadName, service_name
from fleet.zk import Node, ZooKeeper

#: Seconds between full reads of a server set.
_AGAIN = 10.0
#: Largest payload that is believed: what is meant for an edge is a few KB.
_MOST = 256 * 1024
#: Members whose faults are told one by one, and characters of what is wrong with a payload.
_NAMED, _SAID = 3, 500


@dataclass(frozen=True)
class Seen:
    """One service as ZooKeeper has it. ``config`` or ``plan`` is None where it is missing or malformed; ``faults`` says
    what is wrong, a sentence for each kind."""

    config: ServiceConfig | None
    plan: Plan | None
    sets: dict[str, tuple[Host, ...]]
    faults: Mapping[str, str] = field(default_factory=dict)


class View:
    def __init__(self, zk: ZooKeeper) -> None:
        self._zk = zk
        #: Path -> what the member there is; see ``_member``.
        self._members: dict[str, Host | str | None] = {}
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

    def plans(self, services: Iterable[str]) -> dict[str, Plan]:
        """The plans of ``services``, as far as they can be read. Raises ZooKeeperTrouble."""
        at = {paths.plan(s): s for s in services}
        found = {
            at[p]: _decoded("plan", at[p], Plan, n, {}) for p, n in self._zk.get_many(list(at), watch=True).items()
        }
        return {s: plan for s, plan in found.items() if plan is not None}

    def removed(self) -> frozenset[str]:
        """Services that an operator removed. Raises ZooKeeperTrouble."""
        return frozenset(self._zk.children(paths.REMOVED))

    def _service(self, s: str, used: set[str], fresh: bool) -> Seen | None:
        raw_config, raw_plan = self._zk.get(paths.config(s)), self._zk.get(paths.plan(s))
        if raw_config is None and raw_plan is None:
            return None
        faults: dict[str, str] = {}
        config = _decoded("config", s, ServiceConfig, raw_config, faults) if raw_config else None
        plan = _decoded("plan", s, Plan, raw_plan, faults) if raw_plan else None
        sets: dict[str, tuple[Host, ...]] = {}
        wrong: list[str] = []
        for v in members.wanted(plan) if plan else ():
            found, unusable = self._set(s, v, used, fresh)
            sets[v] = members.hosts(found)
            wrong += [f"{v}: {what}" for what in unusable]
        if wrong:
            more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            faults["members"] = f"members that take no requests: {'; '.join(wrong[:_NAMED])}{more}"
        return Seen(config, plan, sets, faults)

    def _set(self, s: str, version: str, used: set[str], fresh: bool) -> tuple[list[Host], list[str]]:
        """The hosts of ``version`` that take requests, and what is wrong with members that never can."""
        names = self._zk.children(paths.serverset(s, version))
        wanted = {paths.member(s, version, name): name for name in names}
        used.update(wanted)
        read = self._zk.get_many([p for p in wanted if fresh or p not in self._members])
        self._members |= {path: _member(wanted[path], node) for path, node in read.items()}
        # One that is not there has left between the two reads.
        found = [self._members[path] for path in wanted if path in self._members]
        return [h for h in found if isinstance(h, Host)], [what for what in found if isinstance(what, str)]


def _member(name: str, node: Node) -> Host | str | None:
    """As ``members.host`` says; a sentence too where the node holds no member."""
    faults: dict[str, str] = {}
    member = _decoded("member", name, Member, node, faults)
    return members.host(member) if member is not None else faults["member"]


def _valid(name: str) -> bool:
    try:
        service_name(name)
    except BadName:
        return False
    return True


def _decoded(what: str, of: str, model: type[W], node: Node, faults: dict[str, str]) -> W | None:
    """What the node holds; None where it cannot be believed, and why in ``faults``."""
    if not 0 < len(node.data) <= _MOST:
        faults[what] = f"the {what} of {of} is {len(node.data)} bytes long, not 1 to {_MOST}"
        return None
    try:
        return decode(model, node.data)
    except ValidationError as e:
        faults[what] = f"the {what} of {of} is malformed: {sentence(e)[:_SAID]}"
        return None
