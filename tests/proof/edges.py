"""One edge: the real agent over a model varnishd and a model ZooKeeper, and all that can happen to the three.

The agent may be killed at any write or order to Varnish, and be away while Varnish serves on; its disk survives.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import structlog

from edge import agent as agents
from edge import lastgood, render, server, sockets
from edge.agent import Agent
from edge.config import EdgeConfig
from edge.engine import Shape, VarnishEngine
from edge.hooks import Hooks
from edge.lastgood import LastGood
from edge.metrics import Metrics
from edge.render import Rendered, Route
from fleet import paths
from fleet.loop import Trouble
from fleet.model import Ack, Plan, decode
from tests.proof import varnish
from tests.proof.varnish import Varnish
from tests.proof.zookeeper import Killed, Part, Server

SERVICE = "shop"


class Disk:
    """In place of ``edge.lastgood.Store``: what a restart begins with."""

    def __init__(self) -> None:
        self.good = LastGood().encode()
        self.services: dict[str, Rendered] = {}
        self.routes: tuple[Route, ...] = ()

    def read(self) -> LastGood:
        return LastGood.model_validate_json(self.good)

    def write(self, good: LastGood, boot: partial[None]) -> bool:
        raw = good.encode()
        if raw == self.good:
            return False
        self.good = raw
        _, self.services, self.routes = boot.args  # what it would write for varnishd
        return True


@contextlib.contextmanager
def models() -> Iterator[None]:
    """Renderings are the model's while this lasts, and nobody logs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with (
            mock.patch.object(render, "service", varnish.vcl),
            mock.patch.object(render, "root", varnish.root),
            mock.patch.object(sockets, "cut", lambda *_: 0),  # no request is a websocket here
        ):
            yield
    finally:
        structlog.configure(**before)


class Edge(Part):
    def __init__(self, server_: Server, name: str, up: Callable[[str], bool], clock: Callable[[], float]) -> None:
        super().__init__(server_, name, "edge")
        self._clock = clock
        self.disk = Disk()
        self.varnish = Varnish(up, clock, self._ordered, self._changed)
        self._boot()
        self._before: tuple[varnish.Routing | None, bool] = (None, False)
        self.agent: Agent[Shape] | None = None
        self._metrics = Metrics(name)
        #: Orders to Varnish that the agent still gives before it is killed.
        self.kill_in: int | None = None
        #: The load balancer leaves it out, by an operator's hand.
        self.out = False
        self.said = ""
        #: Told of what its agent changed for new requests: routing before, and whether the page was green.
        self.on_change: Callable[[Edge, varnish.Routing | None, bool], None] = lambda *_: None

    def _boot(self) -> None:
        self.varnish.boot(self.disk.services, self.disk.routes, server.NOT_YET)

    # -- what users and promises see --

    @property
    def takes_traffic(self) -> bool:
        return self.varnish.green and not self.out

    @property
    def routing(self) -> varnish.Routing | None:
        return self.varnish.route(SERVICE)

    @property
    def reaches_zookeeper(self) -> bool:
        return self.session is not None and self.session.connected

    def ack(self) -> Ack | None:
        stored = self.server.now.get(paths.ack(SERVICE, self.name))
        return decode(Ack, stored.data) if stored else None

    def may_need(self, version: str) -> bool:
        """Can a request that enters here now, or one that is under way, be for ``version``?"""
        now = self.routing
        served = now is not None and (version in now.serving or version == now.default)
        return version in self.varnish.under_way() or (self.takes_traffic and served)

    def serves(self, plan: Plan) -> bool:
        """Do new requests go by ``plan``, but for its members?"""
        now = self.routing
        return now is not None and (now.mode, now.generation, now.default, now.serving, now.ramp) == (
            plan.mode,
            plan.generation,
            plan.default,
            plan.serving,
            plan.ramp,
        )

    # -- what happens to it --

    def cycle(self) -> None:
        if self.agent is None:
            self._start()
        assert self.agent is not None
        try:
            self.said = self.agent.cycle()
        except Trouble as e:
            self.said = str(e)
        except Killed:
            self.kill()

    def _start(self) -> None:
        session = self.connect()
        config = EdgeConfig(name=self.name, zookeeper="model", directory=Path("/nonexistent"))
        with mock.patch.object(agents, "Store", lambda _: self.disk):
            self.agent = Agent(
                config,
                session,
                self._metrics,
                Hooks(self.name, (), lambda *_: None),
                lambda: None,
                lambda shared: VarnishEngine(shared, self.varnish, lambda: True),  # type: ignore[arg-type]
                clock=self._clock,
            )
        self.agent._revisit.schedule = lambda: None  # type: ignore[method-assign]  # no timers: the world wakes it

    def kill(self) -> None:
        """Varnish serves on; the agent's session lives on until it expires."""
        self.agent = None
        self.kill_in = None

    def restart_all(self) -> None:
        """The machine boots: Varnish from the last good set, its agent when its turn comes."""
        self.kill()
        self._boot()
        self._before = (self.routing, False)

    def restart_varnish(self) -> None:
        """varnishd alone boots, from the last good set; its agent does not know yet."""
        self._boot()
        self._before = (self.routing, False)

    def _changed(self) -> None:
        before, self._before = self._before, (self.routing, self.varnish.green)
        if before != self._before:
            self.on_change(self, *before)

    def _ordered(self, what: str, name: str) -> None:
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                raise Killed


__all__ = ["SERVICE", "Disk", "Edge", "lastgood", "models"]
