"""What nginx is made to do, and what was observed of it in its present life. Decides nothing: ``edge.nginx.plan`` does.

A reload takes several looks: test, ask clients to close their connections and give them time, tell nginx, and believe
it when every worker says so.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from edge.nginx import plan
from edge.nginx.control import Nginx, NginxTrouble
from edge.nginx.look import Look
from edge.nginx.plan import Action, Commit, Forget, Reload
from edge.nginx.render import Configuration, closing_flag
from fleet import log

_log = log.get()

#: What nginx did not take is tried again after so many seconds.
AGAIN = 30.0
#: Seconds from the signal until the new workers must answer.
_TAKES = 15.0


class Driver:
    def __init__(
        self,
        nginx: Nginx,
        close_seconds: float,
        took: Callable[[str, float], None] = lambda _phase, _seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``took`` is told the seconds of each phase: compile (nginx's test), close, switch, load, drain."""
        self._nginx = nginx
        self._close_seconds = close_seconds
        self._took = took
        self._clock = clock
        self._start_id = secrets.token_hex(4)
        self.incarnation = self.nothing
        self._process = (0, "")
        self._tested: str | None = None
        self._refused: dict[str, tuple[str, float]] = {}
        #: Since when the configuration in force asks clients to close: its name, the time.
        self._closing: tuple[str, float] | None = None
        self._routed: dict[int, frozenset[tuple[str, str]] | None] = {}
        self._leaving_since: float | None = None

    @property
    def nothing(self) -> str:
        """The incarnation of an ack while nothing can be said of nginx."""
        return f"{self._start_id}/none"

    # -- observe --

    def observe(self) -> Look:
        look = self._nginx.look()
        now = self._clock()
        if (look.master, look.started) != self._process:
            self._process = (look.master, look.started)
            self.incarnation = f"{self._start_id}/{look.master}@{look.started}"
            self._routed, self._closing = {}, None
            _log.info("nginx", master=look.master, configuration=look.marker.name)
        self._refused = {n: (text, at) for n, (text, at) in self._refused.items() if now < at + AGAIN}
        self._remember(look)
        if look.leaving and self._leaving_since is None:
            self._leaving_since = now
        elif not look.leaving and self._leaving_since is not None:
            self._took("drain", now - self._leaving_since)
            self._leaving_since = None
        return look

    def _remember(self, look: Look) -> None:
        """Which routings the requests in each worker may be on. What was in use before this agent looked: all that the
        configuration can; of a worker that was leaving already, nothing is known."""
        now = frozenset((s, r.active) for s, r in look.marker.services.items())
        possible = now | {(s, r.current) for s, r in look.marker.services.items()}
        routed: dict[int, frozenset[tuple[str, str]] | None] = {}
        for pid in look.leaving:
            routed[pid] = self._routed.get(pid)
        for pid in look.workers:
            known = self._routed.get(pid)
            routed[pid] = possible if known is None else known | now
        self._routed = routed

    def memory(self, epochs: dict[tuple[str, str], int]) -> plan.Memory:
        return plan.Memory(epochs, {n: text for n, (text, _) in self._refused.items()}, dict(self._routed))

    # -- apply --

    def apply(self, actions: Sequence[Action], look: Look) -> float | None:
        """In order. Seconds until it makes sense to go on; None: at once."""
        for action in actions:
            match action:
                case Commit(service, staged):
                    began = self._clock()
                    self._nginx.commit(look.marker.name, service, staged)
                    self._took("switch", self._clock() - began)
                    _log.info("committed", service=service, routing=staged)
                case Forget(flag):
                    self._nginx.remove_flag(flag)
                    if flag == closing_flag(look.marker.name):
                        self._closing = None
                case Reload(configuration):
                    return self._reload(configuration, look)
        return None

    def _reload(self, configuration: Configuration, look: Look) -> float | None:
        about = _changed(configuration, look)
        if self._tested != configuration.name and not self._test(configuration, about):
            return None
        now = self._clock()
        if self._closing is None or self._closing[0] != look.marker.name:
            self._closing = (look.marker.name, now)
            self._nginx.close_connections(look.marker.name)
        if now - self._closing[1] < self._close_seconds and self._nginx.connections():
            return 0.1
        self._took("close", now - self._closing[1])
        self._nginx.reload(configuration)
        self._confirm(configuration, about)
        return None

    def _test(self, configuration: Configuration, about: Sequence[str | None]) -> bool:
        began = self._clock()
        said = self._nginx.test(configuration)
        self._took("compile", self._clock() - began)
        if said is not None:
            self._refuse(configuration, said, about)
            return False
        self._tested = configuration.name
        return True

    def _refuse(self, configuration: Configuration, said: str, about: Sequence[str | None]) -> None:
        self._refused[configuration.name] = (said, self._clock())
        self._tested = None
        words = "nginx refused a configuration; the last good one serves on"
        for service in about:
            _log.error(words, service=service, configuration=configuration.name, error=said)

    def _confirm(self, configuration: Configuration, about: Sequence[str | None]) -> None:
        began = self._clock()
        while self._clock() - began < _TAKES:
            try:
                if self._nginx.look().marker.name == configuration.name:
                    self._nginx.keep(configuration)
                    seconds = self._clock() - began
                    self._took("load", seconds)
                    for service in about:
                        _log.info("loaded", service=service, configuration=configuration.name, seconds=f"{seconds:.3f}")
                    return
            except NginxTrouble:
                pass  # in the midst of it nothing may be believed yet; the deadline bounds this
            time.sleep(0.02)
        self._nginx.put_back()
        self._refuse(
            configuration, f"nginx accepted it, but did not serve by it within {_TAKES:g} s: see its log", about
        )


def _changed(configuration: Configuration, look: Look) -> Sequence[str | None]:
    """For the log: the services that ``configuration`` has otherwise than what answers; [None] where there is none."""
    known = {s: r.part for s, r in look.marker.services.items()}
    return [p.service for p in configuration.parts if known.get(p.service) != p.name] or [None]
