"""Is the fleet in containers whole, so that the next part may be touched: everybody there, green, agreed, and serving.

``lacks`` decides, and asks nobody; ``look`` asks the barrier service, each health page, S3 and each ZooKeeper server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.loop import Trouble
from fleet.model import Plan
from pinrail.errors import CommandError
from pinrail.local import bringup, ready
from pinrail.local.progress import Clock, Progress
from pinrail.local.state import FleetState
from pipeline.client import BarrierError, Client

Json = Mapping[str, Any]
#: Of what is missing, as many are said.
_SAID = 8


def lacks(edges: Iterable[str], hosts: Iterable[str], plans: Mapping[str, Plan], seen: tuple[Json, Json]) -> list[str]:
    """What is not as it should be, in words. ``seen``: the API's views of edges and of hosts, by name."""
    edge_views, host_views = seen
    hosts = list(hosts)
    said = []
    for name in edges:
        view = edge_views.get(name)
        if view is None or not view["alive"] or not view["rostered"]:
            said.append(f"{name} is away")
            continue
        for service, plan in plans.items():
            of = view["services"].get(service) or {"ack": None, "behind": "no ack"}
            if of["behind"] is not None or of["ack"] is None:
                said.append(f"{name} of {service}: {of['behind']}")
                continue
            healthy = of["ack"]["healthy"]
            few = [f"{v} {healthy.get(v, 0)}/{len(hosts)}" for v in plan.serving if healthy.get(v, 0) < len(hosts)]
            if few:
                said.append(f"{name} sees hosts of {service}: {', '.join(few)}")
    for name in hosts:
        for service, plan in plans.items():
            of = host_views.get(name, {}).get("services", {}).get(service)
            slots = of["status"]["slots"] if of else []
            runs = {s["build"] for s in slots if s["state"] == "serving"}
            if gone := [v for v in plan.serving if v not in runs]:
                said.append(f"{name} does not serve {service} {', '.join(gone)}")
    return said


def look(fleet: FleetState, api: Client) -> list[str]:
    """What is not whole now. Whoever cannot be asked is not."""
    said = [words for b in fleet.barrier if (words := ready.http(f"{b.url}/readyz"))]
    said += [words for e in fleet.edges if (words := ready.http(f"{e.url}/.pinrail/health"))]
    # One that has not joined again yet, and the next one taken away: nobody would be left to agree with.
    keepers = fleet.zookeeper.connect.partition("/")[0].split(",")
    said += [words for address in keepers if (words := ready.keeper(address))]
    try:
        if words := ready.check(fleet, "s3"):
            said.append(words)
        plans = {s["service"]: api.plan(s["service"]) for s in api.services()}
        seen = {e["name"]: e for e in api.edges()}, {h["name"]: h for h in api.hosts()}
    except (Trouble, BarrierError, ready.Refused) as e:
        return [*said, str(e)]
    return said + lacks((e.id for e in fleet.edges), (h.id for h in fleet.hosts), plans, seen)


def wait(fleet: FleetState, api: Client, seconds: float, progress: Progress) -> None:
    """Raises CommandError (3) with what is still missing."""
    clock = Clock()
    said: list[str] = []

    def whole() -> bool:
        said[:] = look(fleet, api)
        progress.waiting(said[:3])
        return not said

    try:
        bringup.wait_for("the fleet is not whole", whole, seconds)
    except CommandError as e:
        more = f"; and {len(said) - _SAID} more" if len(said) > _SAID else ""
        raise CommandError(f"{e}: {'; '.join(said[:_SAID])}{more}", e.code) from e
    progress.done("the fleet", clock(), "is whole")
