"""What a local fleet is doing now: its own record, pids from its supervisord, the rest from the barrier service."""

from __future__ import annotations

from typing import Any

from pinrail.local.state import FleetState
from pinrail.local.supervisord import Supervisor


def refresh(fleet: FleetState) -> None:
    """Pids as supervisord has them now; None for what does not run."""
    infos = Supervisor(fleet.supervisor.socket).programs()

    def pid(name: str) -> int | None:
        return infos[name].pid or None if name in infos else None

    for edge in fleet.edges:
        edge.pids = {"agent": pid(edge.id), "server": pid(f"{edge.id}-server")}
    for host in fleet.hosts:
        host.pids = {"agent": pid(host.id), "server": pid(f"{host.id}-server")}
    for barrier in fleet.barrier:
        barrier.pid = pid(barrier.id)
    fleet.zookeeper.pid, fleet.s3_pid, fleet.prometheus_pid = pid("zookeeper"), pid("s3"), pid("prometheus")


def collect(fleet: FleetState) -> dict[str, Any]:
    refresh(fleet)
    return fleet.model_dump(mode="json")


def show(status: dict[str, Any]) -> None:
    raise NotImplementedError
