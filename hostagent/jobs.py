"""One service's work: begun one at a time beside the loop, given up where the world moved on, tried again with backoff.

Holds the little that neither the plan nor the machine can know: which pools were checked, what failed and how often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fleet import log
from fleet.loop import Trouble
from fleet.model import ServiceConfig
from hostagent import machine
from hostagent.metrics import Metrics
from hostagent.plan import Decision
from hostagent.steps import Steps
from hostagent.supervisor import Process
from hostagent.work import Check, Revive, Start, Stop, Work, step, what
from hostagent.worker import Cancelled, Worker

_log = log.get()
#: Seconds before work that failed is tried again: doubles from the first to the last.
BACKOFF = (1.0, 30.0)
#: Work that takes something away from what serves, or puts something in its place: not while ZooKeeper is away.
_TRANSITIONS = (Stop, Start)


@dataclass
class _Failure:
    """Work that failed, how often in a row, and when it may be tried again (monotonic)."""

    times: int = 0
    again: float = 0.0
    error: str = ""


class Jobs:
    def __init__(self, service: str, steps: Steps, metrics: Metrics, wake: Callable[[], None]) -> None:
        self._service = service
        self._steps = steps
        self._metrics = metrics
        self._worker = Worker(f"host-{service}", wake)
        #: What is being done.
        self.work: Work | None = None
        #: The nginx that each slot's pool was checked behind.
        self.checked: dict[int, tuple[str, int]] = {}
        self._begun_behind: tuple[str, int] | None = None
        self._failures: dict[Work, _Failure] = {}
        self._serial = 0

    @property
    def busy(self) -> bool:
        return self._worker.busy

    @property
    def errors(self) -> dict[Work, str]:
        """What failed and stands to be tried again, in its own words."""
        return {work: f.error for work, f in self._failures.items() if f.error}

    def collect(self) -> None:
        """Take the result of work that has ended. What is ours to fix leaves here as a crash.

        Before the machine is looked at: what was seen before the work ended would have it done again.
        """
        if self.work is None or not self._worker.done:
            return
        work, self.work = self.work, None
        try:
            self._worker.result()
        except Cancelled:
            _log.info("gave up", service=self._service, step=step(work))
        except Trouble as trouble:
            self._metrics.failed(step(work))
            _log.warning(str(trouble), service=self._service, step=step(work))
            self._failed(work, str(trouble))
        else:
            _log.info("done", service=self._service, step=step(work), what=what(work))
            self._succeeded(work)

    def _succeeded(self, work: Work) -> None:
        if not isinstance(work, Revive):
            self._failures.pop(work, None)
        match work:
            case Check(slot, build):
                self._failures.pop(Revive(slot, build), None)
                if self._begun_behind:
                    self.checked[slot] = self._begun_behind
            case Revive(slot, build):
                # Kept as a failure, so that a pool that always dies is not revived in a tight circle. Once is none.
                often = f"processes of {self._service} {build} in slot {slot} exit at once, again and again"
                self._failed(work, often + self._steps.last_words(slot) if work in self._failures else "")

    def _failed(self, work: Work, error: str) -> None:
        f = self._failures.setdefault(work, _Failure())
        f.error = error
        f.again = time.monotonic() + min(BACKOFF[0] * 2**f.times, BACKOFF[1])
        f.times += 1

    def drive(self, decision: Decision, config: ServiceConfig, serial: int, running: dict[int, list[Process]]) -> None:
        """Begin what is most urgent and may be tried, or give up what is not wanted any more.

        ``serial`` is of what is enabled: another one is another chance for everything.
        """
        if serial != self._serial:
            self._failures.clear()
            self._serial = serial
        if self._worker.busy:
            if self.work not in decision.work:
                self._worker.cancel()
            return
        now = time.monotonic()
        for work in decision.work:
            if work not in self._failures or now >= self._failures[work].again:
                self._begin(work, config, running)
                return

    def _begin(self, work: Work, config: ServiceConfig, running: dict[int, list[Process]]) -> None:
        self.work = work
        if isinstance(work, Check):
            nginx = machine.nginx_of(running.get(work.slot, ()))
            self._begun_behind = (nginx.group, nginx.pid) if nginx else None
        self._worker.begin(lambda give_up: self._steps.do(work, config, give_up))

    def suspend(self) -> None:
        """ZooKeeper is away: nothing that moves the fleet goes on."""
        if isinstance(self.work, _TRANSITIONS):
            self._worker.cancel()

    def unserved(self) -> None:
        """supervisord is gone, and everything that it ran with it."""
        self.checked.clear()
        self._worker.cancel()

    def close(self) -> None:
        self._worker.cancel()

    def join(self, seconds: float) -> None:
        self._worker.join(seconds)
