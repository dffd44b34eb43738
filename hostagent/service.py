"""One service on this host, one cycle: observe, decide, register, begin or give up work, report.

Joins the pure plan with what touches the world; holds the little that neither can know: which pools were checked, what
failed and when to try it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from fleet import log, paths
from fleet.config import sentence
from fleet.files import write_atomic
from fleet.loop import Trouble
from fleet.model import Enabled, Endpoint, HostStatus, Member, ServiceConfig, Slot, SlotState, Turn, decode
from fleet.zk import ZooKeeper
from hostagent import failpoint, machine, plan
from hostagent.config import HostConfig
from hostagent.layout import Layout
from hostagent.membership import Membership
from hostagent.metrics import Metrics
from hostagent.plan import Reached, View
from hostagent.slots import Slots
from hostagent.steps import Steps
from hostagent.supervisor import Process
from hostagent.worker import Cancelled, Worker

_log = log.get()
#: Seconds before work that failed is tried again: doubles from the first to the last.
BACKOFF = (1.0, 30.0)
#: Work that takes something away from what serves, or puts something in its place: not while ZooKeeper is away.
_TRANSITIONS = (plan.Stop, plan.Start)


@dataclass
class _Failure:
    """Work that failed, how often in a row, and when it may be tried again (monotonic)."""

    times: int = 0
    again: float = 0.0
    error: str = ""


class ServiceAgent:
    def __init__(
        self,
        service: str,
        config: HostConfig,
        layout: Layout,
        zk: ZooKeeper,
        slots: Slots,
        steps: Steps,
        metrics: Metrics,
        wake: Callable[[], None],
    ) -> None:
        self.service = service
        self._host = config
        self._layout = layout
        self._zk = zk
        self._slots = slots
        self._steps = steps
        self._metrics = metrics
        self._members = Membership(zk, service, config.name)
        self._worker = Worker(f"host-{service}", wake)
        self._work: plan.Work | None = None
        self._begun_behind: tuple[str, int] | None = None
        self._checked: dict[int, tuple[str, int]] = {}
        self._failures: dict[plan.Work, _Failure] = {}
        self._serial = 0
        self.seen: tuple[Slot, ...] = ()

    # -- one cycle --

    def cycle(self, running: dict[int, list[Process]]) -> str:
        """``running`` are this service's groups, looked at after ``collect``. Raises ZooKeeperTrouble or Conflict."""
        try:
            view = self._observe(running)
        except ValidationError as e:
            return self._report((), f"its config or what is enabled cannot be read: {sentence(e)}", 0, None)
        if view is None:
            return f"{self.service}: has no config yet"
        decision = plan.decide(view)
        self._register(view, decision)
        reached = self._reach(view, decision)
        self._drive(view, decision, running)
        return self._report(self._states(decision), self._error(view, decision), reached, view.enabled)

    def leave(self, running: dict[int, list[Process]]) -> bool:
        """The service was removed: register nothing, stop what runs. True once nothing is left of it to do.

        Edges let go of it at the same word, so this is a stop like any other. Raises ZooKeeperTrouble or Conflict.
        """
        config = ServiceConfig()
        view = View(
            config=config,
            enabled=Enabled(),
            turn=0,
            reached=Reached(),
            slots=machine.slot_views(self.service, config, running, self._slots, {}),
        )
        self._members.apply({}, set())
        self._zk.delete(paths.host(self.service, self._host.name))
        self.seen = ()
        self._drive(view, plan.decide(view), running)
        return not running and not self._worker.busy

    def unserved(self, why: str) -> None:
        """supervisord is gone, and everything that it ran with it. Raises ZooKeeperTrouble or Conflict."""
        self._members.apply({}, set())
        self._checked.clear()
        self._worker.cancel()
        down = {"live": 0, "state": SlotState.FAILED}
        # No failure of a build, so no ``failed_serial``: a rollout waits for this host, and says why.
        self._report(tuple(s.model_copy(update=down) if s.build else s for s in self.seen), why, 0, None)

    def _observe(self, running: dict[int, list[Process]]) -> View | None:
        node = self._zk.get(paths.config(self.service))
        config = decode(ServiceConfig, node.data) if node else None
        if config is None:
            return None
        complete, anything = machine.archives(self._layout, self.service)
        turn = self._zk.get(paths.turn(self.service, self._host.name))
        held = decode(Turn, turn.data) if turn else None
        releases = machine.releases(self._layout, self.service)
        return View(
            config=config,
            enabled=self._enabled(),
            turn=held.serial if held else None,
            reached=machine.reached(self._layout, self.service),
            slots=machine.slot_views(self.service, config, running, self._slots, self._checked),
            releases=releases,
            unprepared=machine.unprepared(self._layout, self.service, releases, config),
            archives=complete,
            downloads=anything,
        )

    def _enabled(self) -> Enabled | None:
        """What hosts of this role must run; the default's where the role has nothing of its own."""
        for role in dict.fromkeys((self._host.role, "default")):
            node = self._zk.get(paths.enabled(self.service, role))
            if node and (found := decode(Enabled, node.data)):
                return found
        return None

    def _register(self, view: View, decision: plan.Decision) -> None:
        wanted: dict[str, Member] = {}
        endpoints = {f"{self._host.address}:{port}" for port in view.config.ports}
        for s in view.slots:
            if s.index not in decision.members or s.build is None:
                continue
            endpoint = f"{self._host.address}:{s.port}"
            endpoints.add(endpoint)
            wanted[paths.member(self.service, s.build, endpoint)] = Member(
                serviceEndpoint=Endpoint(host=self._host.address, port=s.port),
                shard=s.index,
                weight=s.live,
                name=self._host.name,
            )
        new = [s.build for s in view.slots if s.index in decision.members and s.build]
        for build in new:
            failpoint.at(self.service, build, "register.before")
        self._members.apply(wanted, endpoints)
        for build in new:
            failpoint.at(self.service, build, "register.after")

    def _reach(self, view: View, decision: plan.Decision) -> int:
        """The serial to report; kept on disk when it is new."""
        if view.enabled is None:
            return 0
        if decision.complete and not view.reached.matches(view.enabled):
            new = Reached(serial=view.enabled.serial, builds=view.enabled.builds)
            file = self._layout.reached(self.service)
            newest = new.builds[0].build if new.builds else ""
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                failpoint.at(self.service, newest, "reached.before")
                write_atomic(file, new.encode())
                failpoint.at(self.service, newest, "reached.after")
            except OSError as e:
                raise Trouble(f"cannot write {file}: {e.strerror}") from e
            return new.serial
        # A serial from before somebody began to count anew says nothing about this one.
        behind = view.reached.serial < view.enabled.serial
        return view.reached.serial if behind or view.reached.matches(view.enabled) else 0

    # -- work --

    def collect(self) -> None:
        """Take the result of work that has ended. What is ours to fix leaves here as a crash.

        Before the machine is looked at: what was seen before the work ended would have it done again.
        """
        if self._work is None or not self._worker.done:
            return
        work, self._work = self._work, None
        try:
            self._worker.result()
        except Cancelled:
            _log.info("gave up", service=self.service, step=plan.step(work))
        except Trouble as trouble:
            self._metrics.failed(plan.step(work))
            _log.warning(str(trouble), service=self.service, step=plan.step(work))
            self._failed(work, str(trouble))
        else:
            _log.info("done", service=self.service, step=plan.step(work), what=_what(work))
            self._succeeded(work)

    def _succeeded(self, work: plan.Work) -> None:
        if not isinstance(work, plan.Revive):
            self._failures.pop(work, None)
        match work:
            case plan.Check(slot, build):
                self._failures.pop(plan.Revive(slot, build), None)
                if self._begun_behind:
                    self._checked[slot] = self._begun_behind
            case plan.Revive(slot, build):
                # Kept as a failure, so that a pool that always dies is not revived in a tight circle. Once is none.
                often = f"processes of {self.service} {build} in slot {slot} exit at once, again and again"
                self._failed(work, often if work in self._failures else "")

    def _failed(self, work: plan.Work, error: str) -> None:
        f = self._failures.setdefault(work, _Failure())
        f.error = error
        f.again = time.monotonic() + min(BACKOFF[0] * 2**f.times, BACKOFF[1])
        f.times += 1

    def _drive(self, view: View, decision: plan.Decision, running: dict[int, list[Process]]) -> None:
        serial = view.enabled.serial if view.enabled else 0
        if serial != self._serial:
            self._failures.clear()
            self._serial = serial
        if self._worker.busy:
            if self._work not in decision.work:
                self._worker.cancel()
            return
        now = time.monotonic()
        for work in decision.work:
            if work not in self._failures or now >= self._failures[work].again:
                self._begin(work, view.config, running)
                return

    def _begin(self, work: plan.Work, config: ServiceConfig, running: dict[int, list[Process]]) -> None:
        self._work = work
        if isinstance(work, plan.Check):
            nginx = machine.nginx_of(running.get(work.slot, ()))
            self._begun_behind = (nginx.group, nginx.pid) if nginx else None
        self._worker.begin(lambda give_up: self._steps.do(work, config, give_up))

    def suspend(self) -> None:
        """ZooKeeper is away: nothing that moves the fleet goes on."""
        if isinstance(self._work, _TRANSITIONS):
            self._worker.cancel()

    def close(self) -> None:
        self._worker.cancel()

    def join(self, seconds: float) -> None:
        self._worker.join(seconds)

    # -- the report --

    def _states(self, decision: plan.Decision) -> tuple[Slot, ...]:
        broken = {w.slot for w, f in self._failures.items() if isinstance(w, plan.Start | plan.Check) and f.error}
        return tuple(
            s.model_copy(update={"state": SlotState.FAILED})
            if s.index in broken and s.state in (SlotState.STARTING, SlotState.INSTALLING)
            else s
            for s in decision.slots
        )

    def _error(self, view: View, decision: plan.Decision) -> str | None:
        """The first failure that stands between this host and what is enabled."""
        if decision.problem:
            return decision.problem
        wanted = {e.build for e in view.enabled.builds} if view.enabled else set()
        for work in decision.work:
            matters = isinstance(work, plan.Stop) or getattr(work, "build", None) in wanted
            if matters and (f := self._failures.get(work)) and f.error:
                return f.error
        # While a pool is revived, why its check failed still stands; and that it had to be, until it serves again.
        for work, f in self._failures.items():
            if (
                isinstance(work, plan.Check | plan.Revive)
                and work.build in wanted
                and f.error
                and not decision.complete
            ):
                return f.error
        return None

    def _report(self, slots: tuple[Slot, ...], error: str | None, reached: int, enabled: Enabled | None) -> str:
        self.seen = slots
        status = HostStatus(
            name=self._host.name,
            role=self._host.role,
            address=self._host.address,
            slots=slots,
            serial=reached,
            step=plan.step(self._work) if self._work else None,
            error=error,
            failed_serial=enabled.serial if error and enabled else 0,
        )
        self._zk.hold_ephemeral(paths.host(self.service, self._host.name), status.encode())
        shown = ", ".join(f"{s.index} {s.state.value} {s.build or ''}".rstrip() for s in slots)
        doing = f"; {status.step}" if status.step else ""
        return f"{self.service}: {shown or 'no slots'}{doing}" + (f"; {error}" if error else "")


def _what(work: plan.Work) -> str:
    return " ".join(str(v) for v in vars(work).values())
