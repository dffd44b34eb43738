"""Thin edges and hosts: threads with a ZooKeeper session each that do what agents do to ZooKeeper, and nothing else.

An edge acks what the plan asks as soon as it is allowed to; a host in its turn installs at once and registers. Each
can be told to misbehave. They record what they saw, so that tests can check the promises afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from fleet import paths
from fleet.loop import Trouble, Wake
from fleet.model import (
    Ack,
    EdgeInfo,
    Enabled,
    Endpoint,
    HostStatus,
    Member,
    Plan,
    Slot,
    SlotState,
    Turn,
    decode,
)
from fleet.zk import Conflict, ZooKeeper

Connect = Callable[..., ZooKeeper]


class Thread:
    """A cycle run in a thread whenever ZooKeeper changes, until stopped."""

    def __init__(self, connect: Connect, name: str) -> None:
        self.name = name
        self.wake = Wake()
        self.zk = connect(self.wake)
        self.crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """As a crash of the agent that ZooKeeper has noticed: its session is gone, its ephemeral nodes with it."""
        self.wake.stop()
        self._thread.join(10)
        self.zk.close()

    def _run(self) -> None:
        while not self.wake.stopping:
            try:
                self.cycle()
            except (Conflict, Trouble):
                self.wake()
            self.wake.wait(0.5)

    def cycle(self) -> None:
        raise NotImplementedError


class Edge(Thread):
    def __init__(self, connect: Connect, name: str, service: str = "shop") -> None:
        super().__init__(connect, name)
        self.service = service
        #: Stop at this epoch, as an edge whose agent hangs does.
        self.hold_at: int | None = None
        self.drains = True
        self.green = False
        self.sees: Callable[[str, int], int] = lambda _, registered: registered
        self.plans: list[Plan] = []
        #: Where it says that its metrics are.
        self.metrics = ""
        self.error: str | None = None

    def cycle(self) -> None:
        info = EdgeInfo(name=self.name, url=f"http://{self.name}.example", metrics=self.metrics)
        self.zk.hold_ephemeral(paths.edge(self.name), info.encode())
        self.green = self.zk.get(paths.leaving(self.name)) is None
        if self.green and self.zk.get(paths.rostered(self.name)) is None:
            self.zk.create(paths.rostered(self.name), info.encode())
        node = self.zk.get(paths.plan(self.service))
        plan = decode(Plan, node.data if node else None)
        if plan is None or (self.hold_at is not None and plan.epoch > self.hold_at):
            return
        if not self.plans or self.plans[-1] != plan:
            self.plans.append(plan)
        members = {v: len(self.zk.children(paths.serverset(self.service, v))) for v in plan.serving}
        ack = Ack(
            incarnation=f"{self.name}-1",
            applied=plan.epoch,
            staged=plan.epoch,
            drained=plan.epoch if self.drains else 0,
            members=members,
            healthy={v: self.sees(v, n) for v, n in members.items()},
            error=self.error,
        )
        self.zk.hold_ephemeral(paths.ack(self.service, self.name), ack.encode())


class Host(Thread):
    def __init__(self, connect: Connect, name: str, *, service: str = "shop", slots: int = 2) -> None:
        super().__init__(connect, name)
        self.service = service
        #: Builds that will not start here, and what the host says then.
        self.bad: dict[str, str] = {}
        self.slots: list[str | None] = [None] * slots
        self.serial = 0
        self.failed: tuple[int, str] | None = None
        #: (serial, builds stopped) of every install: what the promises are checked against.
        self.stopped: list[tuple[int, tuple[str, ...]]] = []
        self.turns: list[int] = []
        #: Live processes of each pool.
        self.live = 2
        #: It has its turn and does not come to an end with it.
        self.holds = False
        self.check: Callable[[Host, set[str]], None] = lambda *_: None

    def cycle(self) -> None:
        if self.zk.get(paths.config(self.service)) is None:
            return
        node = self.zk.get(paths.enabled(self.service))
        enabled = decode(Enabled, node.data if node else None) or Enabled()
        node = self.zk.get(paths.turn(self.service, self.name))
        turn = decode(Turn, node.data if node else None)
        if enabled.serial > self.serial and turn is not None and turn.serial >= enabled.serial and not self.holds:
            self._install(enabled)
        self._report()

    def _install(self, enabled: Enabled) -> None:
        self.turns.append(enabled.serial)
        wanted = [b.build for b in enabled.builds]
        for i, build in enumerate(self.slots):
            if build is not None and build not in wanted:
                self.check(self, {build})
                self.stopped.append((enabled.serial, (build,)))
                self.zk.delete(self._member(i, build))
                self.slots[i] = None
        for build in wanted:
            if build in self.slots:
                continue
            if build in self.bad:
                self.failed = (enabled.serial, self.bad[build])
                return
            self.slots[self.slots.index(None)] = build
        self.failed, self.serial = None, enabled.serial

    def _member(self, slot: int, build: str) -> str:
        return paths.member(self.service, build, f"{self.name}:{8000 + slot}")

    def _report(self) -> None:
        for i, build in enumerate(self.slots):
            if build is not None:
                member = Member(serviceEndpoint=Endpoint(host=self.name, port=8000 + i), name=self.name)
                self.zk.hold_ephemeral(self._member(i, build), member.encode())
        status = HostStatus(
            name=self.name,
            slots=tuple(
                Slot(index=i, port=8000 + i, build=b, state=SlotState.SERVING, processes=2, live=self.live)
                if b
                else Slot(index=i, port=8000 + i)
                for i, b in enumerate(self.slots)
            ),
            serial=self.serial,
            error=self.failed[1] if self.failed else None,
            failed_serial=self.failed[0] if self.failed else 0,
        )
        self.zk.hold_ephemeral(paths.host(self.service, self.name), status.encode())
