"""``pinrail edge run``: puts an engine's agent together and runs it until TERM or INT."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from edge import server, status
from edge.agent import Agent
from edge.config import EdgeConfig
from edge.engine import Shape, VarnishEngine
from edge.flips import Flips
from edge.hooks import Hooks
from edge.metrics import Metrics
from edge.nginx import main as nginx_main
from edge.nginx import server as nginx_server
from edge.varnish import Varnish
from fleet import log, loop
from fleet.loop import Cycling, Trouble, Wake
from fleet.zk import ZooKeeper, read_access


class Watched:
    """The agent, and what its last cycle ran into: ``/healthz`` says it."""

    def __init__(self, agent: Cycling) -> None:
        self._agent = agent
        self.trouble: str | None = "starting"

    def cycle(self) -> str:
        try:
            sentence = self._agent.cycle()
        except Trouble as e:
            self.trouble = str(e)
            raise
        self.trouble = None
        return sentence


@contextmanager
def _beside_varnish(
    config: EdgeConfig, zk: ZooKeeper, metrics: Metrics, hooks: Hooks, wake: Callable[[], None]
) -> Iterator[Cycling]:
    server.prepare(config)
    varnish = Varnish(config.varnish.admin, server.secret_file(config))
    counting = threading.Event()
    agent: Agent[Shape] = Agent(
        config, zk, metrics, hooks, wake, lambda shared: VarnishEngine(shared, varnish, counting.is_set)
    )
    flips = Flips(server.workdir(config), agent.known_versions, metrics, counting, wake)
    flips.start()
    try:
        yield agent
    finally:
        flips.stop()
        varnish.close()


def run(config: EdgeConfig) -> None:
    log.configure(edge=config.name)
    wake = Wake()
    loop.stop_on_signals(wake)
    loop.crash_with_any_thread()
    metrics = Metrics(config.name)
    access = read_access(config.zookeeper_access, "edge")
    zk = ZooKeeper(config.zookeeper, wake=wake, session_seconds=config.session_seconds, access=access)
    hooks = Hooks(config.name, config.on_commit, metrics.hook)
    engine = nginx_main.beside_nginx if config.engine == "nginx" else _beside_varnish
    try:
        with engine(config, zk, metrics, hooks, wake) as agent:
            watched = Watched(agent)
            page = status.serve(config.metrics, metrics.registry, lambda: watched.trouble)
            hooks.start()
            try:
                loop.run(watched, wake, every=config.every)
            finally:
                hooks.stop()
                page.shutdown()
    finally:
        zk.close()


def serve(config: EdgeConfig) -> NoReturn:
    """Become the engine's server, booted from the last good set."""
    if config.engine == "nginx":
        nginx_server.run(config)
    server.run(config)
