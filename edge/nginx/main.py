"""``pinrail edge run`` beside nginx: puts the agent together and runs it until TERM or INT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.agent import Agent
from edge.config import EdgeConfig
from edge.hooks import Hooks
from edge.metrics import Metrics
from edge.nginx import server
from edge.nginx.control import Nginx
from edge.nginx.engine import NginxEngine, Shape
from edge.nginx.probes import Probes
from edge.nginx.requests import Requests
from fleet.zk import ZooKeeper


@contextmanager
def beside_nginx(
    config: EdgeConfig, zk: ZooKeeper, metrics: Metrics, hooks: Hooks, wake: Callable[[], None]
) -> Iterator[Agent[Shape]]:
    """The agent with all that runs beside it, for as long as the block does."""
    server.prepare(config)
    nginx, probes = Nginx(config), Probes(wake)
    made: Agent[Shape] = Agent(config, zk, metrics, hooks, wake, lambda shared: NginxEngine(shared, nginx, probes))
    log = Path(server.directory(config)) / "requests.log"
    delivered = config.nginx.attest == "hosts"
    requests = Requests(log, made.known_versions, metrics, nginx.reopen_log, delivered=delivered)
    probes.start()
    requests.start()
    try:
        yield made
    finally:
        requests.stop()
        probes.stop()
