"""``pinrail edge run``: puts the agent together and runs it until TERM or INT."""

from __future__ import annotations

from edge import server, status
from edge.agent import Agent
from edge.config import EdgeConfig
from edge.flips import Flips
from edge.metrics import Metrics
from edge.varnish import Varnish
from fleet import log, loop
from fleet.loop import Trouble, Wake
from fleet.zk import ZooKeeper


class Watched:
    """The agent, and what its last cycle ran into: ``/healthz`` says it."""

    def __init__(self, agent: Agent) -> None:
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


def run(config: EdgeConfig) -> None:
    log.configure(edge=config.name)
    server.prepare(config)
    wake = Wake()
    loop.stop_on_signals(wake)
    metrics = Metrics(config.name)
    zk = ZooKeeper(config.zookeeper, wake=wake, session_seconds=config.session_seconds)
    varnish = Varnish(config.varnish.admin, server.secret_file(config))
    agent = Agent(config, zk, varnish, metrics, wake)
    watched = Watched(agent)
    flips = Flips(server.workdir(config), agent.known_versions, metrics)
    page = status.serve(config.metrics, metrics.registry, lambda: watched.trouble)
    flips.start()
    try:
        loop.run(watched, wake, every=config.every)
    finally:
        flips.stop()
        page.shutdown()
        varnish.close()
        zk.close()
