"""What the API reads from ZooKeeper, and how it says that something cannot be done. Reads only."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, Literal

from barrier import snapshot
from barrier.snapshot import BadPayload, Fleet, Head, Snapshot, lock_number, parse
from fleet import paths
from fleet.model import Plan, Rollout, ServiceConfig
from fleet.recall import Recall
from fleet.zk import ZooKeeper

#: Tries of a compare-and-set before giving up; each reads again.
TRIES = 8

Kind = Literal["unknown", "conflict", "forbidden"]


class Refused(Exception):
    """It cannot be done as things are. ``extra`` goes into the problem that the caller is shown."""

    def __init__(self, kind: Kind, sentence: str, **extra: Any) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.extra = extra


class Store:
    def __init__(self, zk: ZooKeeper) -> None:
        self.zk = zk
        self.recall = Recall(zk)

    def services(self) -> list[str]:
        names = self.zk.children(paths.SERVICES, watch=False)
        found = self.zk.get_many([paths.config(n) for n in names])
        return [n for n in names if paths.config(n) in found]

    def configs(self) -> dict[str, ServiceConfig]:
        """Of all services whose configuration can be read."""
        names = self.zk.children(paths.SERVICES, watch=False)
        found = {}
        for name, node in ((n, self.zk.get(paths.config(n), watch=False)) for n in names):
            if node is not None:
                with contextlib.suppress(BadPayload):
                    found[name] = parse(ServiceConfig, node, paths.config(name))
        return found

    def fleet(self, *, watch: bool = False) -> Fleet:
        return snapshot.read_fleet(self.zk, watch=watch)

    def read(self, service: str, *, watch: bool = False) -> Snapshot:
        """With all that hosts and edges say, of whom there may be thousands: where ``head`` will not do."""
        found = snapshot.read(self.zk, self.recall, service, watch=watch)
        if found is None:
            raise self._unknown(service)
        return found

    def head(self, service: str) -> Head:
        found = snapshot.read_head(self.zk, self.recall, service, watch=False)
        if found is None:
            raise self._unknown(service)
        return found

    def _unknown(self, service: str) -> Refused:
        return Refused("unknown", f"there is no service {service!r}", services=self.services())

    def registered(self, service: str, version: str) -> int:
        return len(self.zk.children(paths.serverset(service, version), watch=False))

    def plan(self, service: str) -> Plan:
        node = self.zk.get(paths.plan(service), watch=False)
        return parse(Plan, node, paths.plan(service)) if node else Plan()

    def numbers(self, service: str) -> list[int]:
        """All rollouts of the service, oldest first."""
        return sorted(int(n) for n in self.zk.children(paths.rollouts(service), watch=False) if n.isdigit())

    def rollout(self, service: str, number: int, *, watch: bool = False) -> Rollout | None:
        path = paths.rollout(service, number)
        node = self.zk.get(path, watch=watch)
        return parse(Rollout, node, path) if node else None

    def reached(self, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Service and number of rollouts -> the epoch that each has reached; of those that are there, and readable."""
        at = {paths.rollout(*which): which for which in wanted}
        found = {}
        for path, node in self.zk.get_many(list(at)).items():
            with contextlib.suppress(BadPayload):
                found[at[path]] = max((e.epoch for e in parse(Rollout, node, path).history), default=0)
        return found

    def rollouts(self, service: str, last: int) -> list[Rollout]:
        """The last ones, newest first."""
        wanted = [paths.rollout(service, n) for n in self.numbers(service)[-last:]]
        found = self.zk.get_many(wanted)
        return [parse(Rollout, found[p], p) for p in reversed(wanted) if p in found]

    def active(self, service: str) -> int | None:
        path = paths.active_rollout(service)
        node = self.zk.get(path, watch=False)
        return lock_number(node, path) if node else None

    def waiting(self, service: str) -> int | None:
        """The rollout that begins when the active one is over."""
        path = paths.waiting_rollout(service)
        node = self.zk.get(path, watch=False)
        return lock_number(node, path) if node else None

    def must_be_idle(self, service: str, but: str) -> None:
        """Raises Refused while a rollout is active or waits; ``but`` says what cannot be done."""
        number, how = self.active(service), "is active"
        if number is None:
            number, how = self.waiting(service), "is queued"
        if number is not None:
            raise Refused("conflict", f"rollout {number} of {service} {how}: {but}", active=number)

    @staticmethod
    def must_be_at(service: str, plan: Plan, expected: int | None) -> None:
        """Raises Refused where the plan is no longer at the epoch that the caller has looked at."""
        if expected is not None and plan.epoch != expected:
            sentence = f"the plan of {service} is at epoch {plan.epoch}, not {expected}: look at it again"
            raise Refused("conflict", sentence, epoch=plan.epoch)

    def leader(self) -> str | None:
        """The name of the replica that drives."""
        names = self.zk.children(paths.CANDIDATES, watch=False)
        node = self.zk.get(f"{paths.CANDIDATES}/{names[0]}", watch=False) if names else None
        return node.data.decode(errors="replace") if node else None
