"""One service on this host, one cycle: observe, decide, register, begin or give up work, report.

Joins the pure plan with what touches the world; ``hostagent.jobs`` does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import ValidationError

from fleet import log, paths
from fleet.config import sentence
from fleet.files import write_atomic
from fleet.model import Enabled, Endpoint, HostStatus, Member, ServiceConfig, Slot, SlotState, Turn, decode
from fleet.zk import ZooKeeper
from hostagent import failpoint, machine, plan, report
from hostagent.config import HostConfig
from hostagent.jobs import Jobs
from hostagent.layout import Layout
from hostagent.membership import Membership
from hostagent.metrics import Metrics
from hostagent.presence import Presence
from hostagent.slots import Slots
from hostagent.steps import Steps
from hostagent.supervisor import Process
from hostagent.view import Reached, View
from hostagent.work import step


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
        self._presence = Presence(zk, service, config.name, config.address)
        self._members = Membership(zk, service, config.name)
        self._steps = steps
        self._jobs = Jobs(service, steps, metrics, wake)
        self.seen: tuple[Slot, ...] = ()

    # -- one cycle --

    def cycle(self, running: dict[int, list[Process]], taken: Mapping[int, str]) -> str:
        """``running`` are this service's groups, looked at after ``collect``; ``taken`` as in ``View``.

        Raises ZooKeeperTrouble, Conflict or Namesake.
        """
        self._presence.must_be_alone()
        try:
            view = self._observe(running, taken)
        except ValidationError as e:
            return self._report((), f"its config or what is enabled cannot be read: {sentence(e)}", 0, None)
        if view is None:
            return f"{self.service}: has no config yet"
        decision = plan.decide(view)
        self._register(view, decision)
        reached, unkept = self._reach(view, decision)
        self._jobs.drive(decision, view.config, view.enabled.serial if view.enabled else 0, running)
        errors = self._jobs.errors
        error = report.error(view, decision, errors) or unkept
        return self._report(report.states(decision, errors), error, reached, view.enabled)

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
        self._presence.leave()
        self.seen = ()
        self._jobs.drive(plan.decide(view), config, 0, running)
        return not running and not self._jobs.busy

    def unserved(self, why: str) -> None:
        """supervisord is gone, and everything that it ran with it. Raises ZooKeeperTrouble or Conflict."""
        self._members.apply({}, set())
        self._jobs.unserved()
        down = {"live": 0, "state": SlotState.FAILED}
        # No failure of a build, so no ``failed_serial``: a rollout waits for this host, and says why.
        self._report(tuple(s.model_copy(update=down) if s.build else s for s in self.seen), why, 0, None)

    def _observe(self, running: dict[int, list[Process]], taken: Mapping[int, str]) -> View | None:
        node = self._zk.get(paths.config(self.service))
        config = decode(ServiceConfig, node.data) if node else None
        if config is None:
            return None
        complete, anything = machine.archives(self._layout, self.service)
        turn = self._zk.get(paths.turn(self.service, self._host.name))
        held = decode(Turn, turn.data) if turn else None
        releases = machine.releases(self._layout, self.service)
        enabled = self._enabled()
        slots = machine.slot_views(self.service, config, running, self._slots, self._jobs.checked)
        coming = {e.build for e in enabled.builds} & releases.keys() - {s.build for s in slots} if enabled else ()
        return View(
            config=config,
            enabled=enabled,
            turn=held.serial if held else None,
            reached=machine.reached(self._layout, self.service),
            slots=slots,
            releases=releases,
            unprepared=machine.unprepared(self._layout, self.service, releases, config)
            | self._steps.unvouched(coming, config),
            archives=complete,
            downloads=anything | machine.leftovers(self._layout, self.service, releases),
            taken=taken,
        )

    def _enabled(self) -> Enabled | None:
        """What hosts of this role must run; the default's where the role has nothing of its own."""
        for role in dict.fromkeys((self._host.role, "default")):
            node = self._zk.get(paths.enabled(self.service, role))
            if node and (found := decode(Enabled, node.data)):
                log.belongs(self.service, found.rollout)
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

    def _reach(self, view: View, decision: plan.Decision) -> tuple[int, str | None]:
        """The serial to report, kept on disk when it is new; and why that could not be."""
        if view.enabled is None:
            return 0, None
        unkept = None
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
                unkept = f"cannot write {file}: {self._layout.said(e)}"
            else:
                return new.serial, None
        # A serial from before somebody began to count anew says nothing about this one.
        behind = view.reached.serial < view.enabled.serial
        return (view.reached.serial if behind or view.reached.matches(view.enabled) else 0), unkept

    # -- for the host's agent --

    def collect(self) -> None:
        """Before supervisord is looked at; see ``Jobs.collect``."""
        self._jobs.collect()

    def suspend(self) -> None:
        self._jobs.suspend()

    def close(self) -> None:
        self._jobs.close()

    def join(self, seconds: float) -> None:
        self._jobs.join(seconds)

    # -- the report --

    def _report(self, slots: tuple[Slot, ...], error: str | None, reached: int, enabled: Enabled | None) -> str:
        self.seen = slots
        status = HostStatus(
            name=self._host.name,
            role=self._host.role,
            address=self._host.address,
            slots=slots,
            serial=reached,
            step=step(self._jobs.work) if self._jobs.work else None,
            error=error,
            failed_serial=enabled.serial if error and enabled else 0,
        )
        self._presence.say(status)
        return report.sentence(self.service, status)
