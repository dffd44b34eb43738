"""One host: the real plan, report and membership over a model of its machine.

A piece of work is done at once or fails. Pools outlive their agent; ``reached`` and releases are on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import paths
from fleet.loop import Trouble
from fleet.model import Enabled, Endpoint, HostStatus, Member, ServiceConfig, Turn, decode
from fleet.zk import Conflict
from hostagent import plan, report
from hostagent.membership import Membership
from hostagent.view import Reached, SlotView, View
from hostagent.work import Check, Fetch, Prune, Revive, Start, Stop, Unpack, Work, step
from tests.proof.edges import SERVICE
from tests.proof.zookeeper import Killed, Part, Server


@dataclass
class Pool:
    build: str
    live: int = 2


@dataclass
class Machine:
    """What survives the agent; the pools do not survive a reboot."""

    pools: dict[int, Pool] = field(default_factory=dict)
    releases: dict[str, str] = field(default_factory=dict)
    archives: dict[str, str] = field(default_factory=dict)
    reached: Reached = field(default_factory=Reached)


class Host(Part):
    def __init__(self, server: Server, name: str) -> None:
        super().__init__(server, name, "host")
        self.address = f"10.0.0.{name.rpartition('-')[2]}"
        self.machine = Machine()
        self._members: Membership | None = None
        self._checked: set[int] = set()
        self._errors: dict[Work, str] = {}
        self._serial = 0
        #: Build -> what goes wrong with it here: (kind of work, what is said).
        self.bad: dict[str, tuple[type, str]] = {}
        #: Told before a pool is stopped, and before one is started.
        self.on_stop: Callable[[Host, str, str], None] = lambda *_: None
        self.on_start: Callable[[Host, str, str], None] = lambda *_: None
        self.status = HostStatus(name=name)

    # -- what others see --

    def endpoint(self, slot: int) -> str:
        return f"{self.address}:{8000 + slot}"

    def at(self, endpoint: str) -> str | None:
        """The version that answers there."""
        slot = int(endpoint.rpartition(":")[2]) - 8000
        pool = self.machine.pools.get(slot)
        return pool.build if pool and pool.live else None

    def runs(self, build: str) -> bool:
        return any(p.build == build and p.live for p in self.machine.pools.values())

    # -- what happens to it --

    def cycle(self) -> None:
        """The agent looks once and does the most urgent piece of work."""
        if self._members is None:
            self._members = Membership(self.connect(), SERVICE, self.name)
        try:
            self._cycle()
        except Killed:
            self.kill()
        except (Trouble, Conflict):
            pass  # as the loop does: another time

    def kill(self) -> None:
        """Pools go on; what was checked is no longer known; the session lives on until it expires."""
        self._members = None
        self._checked.clear()
        self._errors.clear()

    # -- a cycle, as hostagent.service does it --

    def _cycle(self) -> None:
        assert self.session is not None
        zk = self.session
        node = zk.get(paths.config(SERVICE))
        config = decode(ServiceConfig, node.data if node else None)
        if config is None:
            return
        enabled = decode(Enabled, node.data if (node := zk.get(paths.enabled(SERVICE))) else None)
        turn = decode(Turn, node.data if (node := zk.get(paths.turn(SERVICE, self.name))) else None)
        if enabled is not None and enabled.serial != self._serial:
            self._serial = enabled.serial
            self._errors.clear()
        view = self._view(config, enabled, turn)
        decision = plan.decide(view)
        self._register(view, decision)
        reached = self._reach(view, decision)
        error = report.error(view, decision, self._errors)
        self.status = HostStatus(
            name=self.name,
            address=self.address,
            slots=report.states(decision, self._errors),
            serial=reached,
            step=step(decision.work[0]) if decision.work else None,
            error=error,
            failed_serial=enabled.serial if error and enabled else 0,
        )
        zk.hold_ephemeral(paths.host(SERVICE, self.name), self.status.encode())
        if decision.work:
            self._do(decision.work[0])

    def _view(self, config: ServiceConfig, enabled: Enabled | None, turn: Turn | None) -> View:
        m = self.machine
        slots = []
        for i in sorted({*range(config.slots), *m.pools}):
            p = m.pools.get(i)
            slots.append(
                SlotView(i, 8000 + i, p.build, 2, p.live, True, i in self._checked, p.live == 0)
                if p
                else SlotView(i, 8000 + i)
            )
        return View(
            config=config,
            enabled=enabled,
            turn=turn.serial if turn else None,
            reached=m.reached,
            slots=tuple(slots),
            releases=dict(m.releases),
            archives=frozenset(m.archives),
            downloads=frozenset(m.archives),
        )

    def _register(self, view: View, decision: plan.Decision) -> None:
        assert self._members is not None
        wanted = {}
        for s in view.slots:
            if s.index in decision.members and s.build is not None:
                at = Endpoint(host=self.address, port=s.port)
                member = Member(serviceEndpoint=at, shard=s.index, weight=s.live, name=self.name)
                wanted[paths.member(SERVICE, s.build, self.endpoint(s.index))] = member
        self._members.apply(wanted, {self.endpoint(i) for i in range(2)})

    def _reach(self, view: View, decision: plan.Decision) -> int:
        if view.enabled is None:
            return 0
        if decision.complete and not view.reached.matches(view.enabled):
            self.machine.reached = Reached(serial=view.enabled.serial, builds=view.enabled.builds)
            return view.enabled.serial
        behind = view.reached.serial < view.enabled.serial
        return view.reached.serial if behind or view.reached.matches(view.enabled) else 0

    def _do(self, work: Work) -> None:
        m = self.machine
        build = getattr(work, "build", None)
        if build in self.bad and isinstance(work, self.bad[build][0]):
            self._errors[work] = self.bad[build][1]
            return
        match work:
            case Fetch(build, digest):
                m.archives[build] = digest
            case Unpack(build, digest):
                m.releases[build] = digest
                m.archives.pop(build, None)
            case Stop(slot, build):
                self.on_stop(self, build, self.endpoint(slot))
                m.pools.pop(slot, None)
                self._checked.discard(slot)
            case Start(slot, build):
                self.on_start(self, build, self.endpoint(slot))
                m.pools[slot] = Pool(build)
            case Check(slot, _):
                self._checked.add(slot)
            case Revive(slot, _):
                m.pools[slot].live = 2
            case Prune(builds, downloads):
                for build in builds:
                    m.releases.pop(build, None)
                for build in (*builds, *downloads):
                    m.archives.pop(build, None)
        self._errors.pop(work, None)
