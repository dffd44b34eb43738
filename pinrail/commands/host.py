"""``pinrail host``: the two processes of a host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinrail.errors import reported

Config = Annotated[Path, typer.Option("--config", help="The host's file; see docs/config/host.toml.")]


def add_to(app: typer.Typer) -> None:
    host = typer.Typer(
        no_args_is_help=True, help="The processes of one host: the agent, and the server that runs pools."
    )
    host.command()(run)
    host.command()(server)
    app.add_typer(host, name="host")


def run(config: Config) -> None:
    """Run the agent: fetch, verify, unpack, start, check and register what is enabled."""
    from fleet import log, loop
    from fleet.config import load
    from fleet.s3 import ObjectStore
    from fleet.zk import ZooKeeper, ZooKeeperTrouble, read_access
    from hostagent.agent import HostAgent
    from hostagent.config import HostConfig
    from hostagent.metrics import Metrics

    with reported():
        host = load(config, HostConfig)
        log.configure(host=host.name)
        wake = loop.Wake()
        metrics = Metrics(host.name)
        access = read_access(host.zookeeper_access, "host")
        zk = ZooKeeper(host.zookeeper, wake=wake, session_seconds=host.session_seconds, access=access)
        agent = HostAgent(host, zk, ObjectStore(host.s3), metrics, wake)
        metrics.serve(host.metrics)
        loop.stop_on_signals(wake)
        loop.crash_with_any_thread()
        try:
            zk.start()
        except ZooKeeperTrouble as trouble:
            log.get().warning(str(trouble))  # it goes on trying, and so do we
        try:
            loop.run(agent, wake, every=host.every)
        finally:
            agent.close()
            zk.close()


def server(config: Config) -> None:
    """Become the supervisord that runs this host's pools; it outlives the agent."""
    from fleet.config import load
    from hostagent.config import HostConfig
    from hostagent.server import serve

    with reported():
        serve(load(config, HostConfig))
