"""What ZooKeeper says about one service, read at once: the controller decides on it, the API shows it.

Reads only. A payload that cannot be read is never guessed at: a host's or an edge's counts as that node's error,
anything else is ``BadPayload`` and concerns this service alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from barrier import turns as turning
from barrier.predicates import Edges
from fleet import paths
from fleet.config import sentence
from fleet.loop import Trouble
from fleet.model import Ack, EdgeInfo, Enabled, HostStatus, Plan, Rollout, ServiceConfig, Turn, Wire
from fleet.recall import Recall
from fleet.zk import Node, ZooKeeper


class BadPayload(Trouble):
    """A znode holds what nobody of us writes."""


W = TypeVar("W", bound=Wire)


def parse(model: type[W], node: Node, path: str) -> W:
    try:
        return model.model_validate_json(node.data)
    except ValidationError as e:
        raise BadPayload(f"{path} cannot be read: {sentence(e)}") from e


@dataclass(frozen=True)
class Fleet:
    """Edges, for all services: those that must answer and those that live."""

    roster: tuple[str, ...] = ()
    alive: tuple[str, ...] = ()


@dataclass(frozen=True)
class Queue:
    """The rollout that begins when the active one is over; ``place`` is the version of what points to it."""

    place: int
    rollout: Rollout | None
    rollout_version: int = 0


@dataclass(frozen=True)
class Head:
    """What decides about one service; it is little, however many hosts and edges there are.

    ``*_version`` None: that node does not exist.
    """

    service: str
    config: ServiceConfig
    plan: Plan
    plan_version: int | None
    enabled: Enabled
    enabled_version: int | None
    #: ``enabled`` of roles that have their own.
    roles: Mapping[str, Enabled] = field(default_factory=dict)
    rollout: Rollout | None = None
    rollout_version: int = 0
    lock_version: int | None = None
    queue: Queue | None = None
    turns: Mapping[str, Turn] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot(Head):
    """One service, with all that its hosts and edges say."""

    hosts: Mapping[str, HostStatus] = field(default_factory=dict)
    acks: Mapping[str, Ack] = field(default_factory=dict)
    members: Mapping[str, int] = field(default_factory=dict)
    fleet: Fleet = field(default_factory=Fleet)

    @property
    def edges(self) -> Edges:
        return Edges(self.fleet.roster, frozenset(self.fleet.alive), self.acks)

    @cached_property
    def down(self) -> frozenset[str]:
        """Hosts that lack what they should serve, by ``turns.down``."""
        found: set[str] = set()
        for role in ("default", *self.roles):
            found |= turning.down(self.enabled_of(role), self.hosts_of(role), self.config.health)
        return frozenset(found)

    @cached_property
    def missed(self) -> frozenset[str]:
        """Hosts that hold a turn and are away, or have done it and are down since."""
        found = {n for n in self.turns if n not in self.hosts}
        for n in self.down & self.turns.keys():
            if (host := self.hosts[n]).serial >= self.enabled_of(host.role).serial:
                found.add(n)
        return frozenset(found)

    def missed_of(self, role: str) -> frozenset[str]:
        """A host that is away has no role to look at, and counts as one of the default role."""
        hosts = self.hosts_of(role)
        return frozenset(n for n in self.missed if n in hosts or (role == "default" and n not in self.hosts))

    def enabled_of(self, role: str) -> Enabled:
        return self.roles.get(role, self.enabled)

    def hosts_of(self, role: str) -> dict[str, HostStatus]:
        """Hosts that follow that role's ``enabled``; a role without one of its own follows the default."""
        if not self.roles:
            return dict(self.hosts)
        return {n: h for n, h in self.hosts.items() if (h.role if h.role in self.roles else "default") == role}


def read_fleet(zk: ZooKeeper, *, watch: bool) -> Fleet:
    return Fleet(zk.children(paths.ROSTER, watch=watch), zk.children(paths.EDGES, watch=watch))


def read_edges(recall: Recall, fleet: Fleet) -> dict[str, EdgeInfo]:
    """What each edge says of itself; what it said when it joined the roster, where it is away."""
    alive, joined = recall.below(paths.EDGES, _info), recall.below(paths.ROSTER, _info)
    return {n: alive.get(n) or joined.get(n) or EdgeInfo(name=n) for n in sorted({*fleet.roster, *fleet.alive})}


def _info(node: Node, path: str) -> EdgeInfo:
    try:
        return parse(EdgeInfo, node, path)
    except BadPayload:
        return EdgeInfo(name=path.rpartition("/")[2])  # shown by its name alone; nothing is decided by the rest


def _ack(node: Node, path: str) -> Ack:
    try:
        return parse(Ack, node, path)
    except BadPayload as e:
        return Ack(incarnation="?", error=str(e))


def _host(node: Node, path: str) -> HostStatus:
    try:
        return parse(HostStatus, node, path)
    except BadPayload as e:
        return HostStatus(name=path.rpartition("/")[2], error=str(e))


def _turn(node: Node, path: str) -> Turn:
    return parse(Turn, node, path)


def lock_number(node: Node, path: str) -> int:
    if not node.data.isdigit():
        raise BadPayload(f"{path} cannot be read: {node.data[:20]!r} is not a number")
    return int(node.data)


def _queue(zk: ZooKeeper, service: str, *, watch: bool) -> Queue | None:
    place = zk.get(paths.waiting_rollout(service), watch=watch)
    if place is None:
        return None
    path = paths.rollout(service, lock_number(place, paths.waiting_rollout(service)))
    node = zk.get(path, watch=False)
    return Queue(place.version, parse(Rollout, node, path), node.version) if node else Queue(place.version, None)


def read_head(zk: ZooKeeper, recall: Recall, service: str, *, watch: bool) -> Head | None:
    """None where ``service`` is not configured. ``watch``: changes wake the session's owner.

    ``recall`` is of the same session: what thousands say (acks, hosts, turns) is asked of ZooKeeper where it changed.
    """
    config = zk.get(paths.config(service), watch=watch)
    return None if config is None else _head(zk, recall, service, config, watch=watch)


def read(zk: ZooKeeper, recall: Recall, service: str, *, watch: bool) -> Snapshot | None:
    """Everything about ``service``, as ``read_head`` and beyond."""
    config = zk.get(paths.config(service), watch=watch)
    if config is None:
        return None
    # Acks before the plan: an ack then never speaks of a plan that is newer than the one it is compared with.
    acks = recall.below(paths.acks(service), _ack)
    hosts = recall.below(paths.hosts(service), _host)
    head = _head(zk, recall, service, config, watch=watch)
    registered = members(zk, head)
    # The roster after plan and acks: an edge that joined before this plan was written is then on it, and one that
    # joined since turns green only by a plan that it reads after joining.
    fleet = read_fleet(zk, watch=watch)
    return Snapshot(**vars(head), hosts=hosts, acks=acks, members=registered, fleet=fleet)


def members(zk: ZooKeeper, head: Head) -> dict[str, int]:
    """How many hosts have registered each version that is served or comes.

    Without a watch: who registers says so in its status too, and edges in their acks.
    """
    wanted = dict.fromkeys((*head.plan.serving, *((head.rollout.build,) if head.rollout else ())))
    found = zk.count_many([paths.serverset(head.service, v) for v in wanted])
    return {v: found[paths.serverset(head.service, v)] for v in wanted}


def _head(zk: ZooKeeper, recall: Recall, service: str, config: Node, *, watch: bool) -> Head:
    turns = recall.below(paths.turns(service), _turn)
    lock = zk.get(paths.active_rollout(service), watch=watch)
    path = paths.rollout(service, lock_number(lock, paths.active_rollout(service))) if lock else ""
    active = zk.get(path, watch=watch) if lock else None
    rollout = parse(Rollout, active, path) if active else None
    roles = {}
    for role in zk.children(paths.enabled(service), watch=watch):
        if node := zk.get(paths.enabled(service, role), watch=watch):
            roles[role] = parse(Enabled, node, paths.enabled(service, role))
    enabled = zk.get(paths.enabled(service), watch=watch)
    plan = zk.get(paths.plan(service), watch=watch)
    return Head(
        service=service,
        config=parse(ServiceConfig, config, paths.config(service)),
        plan=parse(Plan, plan, paths.plan(service)) if plan else Plan(),
        plan_version=plan.version if plan else None,
        enabled=parse(Enabled, enabled, paths.enabled(service)) if enabled and enabled.data else Enabled(),
        enabled_version=enabled.version if enabled else None,
        roles=roles,
        rollout=rollout,
        rollout_version=active.version if active else 0,
        lock_version=lock.version if lock else None,
        queue=_queue(zk, service, watch=watch),
        turns=turns,
    )
