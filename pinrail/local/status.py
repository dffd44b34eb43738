"""What a local fleet is doing now: its own record, pids from its supervisord, the rest from its barrier service."""

from __future__ import annotations

from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.loop import Trouble
from pinrail.local.state import FleetState
from pinrail.local.supervisord import Supervisor

_SECONDS = 5.0


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
    for server in fleet.zookeeper.servers:
        server.pid = pid(server.id)
    fleet.zookeeper.pid = fleet.zookeeper.servers[0].pid if fleet.zookeeper.servers else None
    fleet.s3_pid, fleet.prometheus_pid = pid("s3"), pid("prometheus")


class _Api:
    """Reads from whichever replica of the barrier service answers."""

    def __init__(self, fleet: FleetState) -> None:
        self._urls = [b.url for b in fleet.barrier if b.pid or fleet.in_containers]
        self._headers = {"Authorization": f"Bearer {fleet.token.read}"}

    def get(self, path: str) -> Any:
        said = "no replica of the barrier service runs"
        for url in self._urls:
            try:
                answer = httpx.get(f"{url}{path}", headers=self._headers, timeout=_SECONDS, trust_env=False)
                answer.raise_for_status()
                return answer.json()
            except (httpx.HTTPError, ValueError) as e:
                said = f"{url}{path}: {e}"
        raise Trouble(said)


def collect(fleet: FleetState) -> dict[str, Any]:
    """The fleet's record with live pids, and per service what is planned and what edges and hosts really do.

    Where the barrier service does not answer, ``services`` is empty and ``trouble`` says why.
    """
    if not fleet.in_containers:
        refresh(fleet)
    api = _Api(fleet)
    services: list[Any] = []
    edges: dict[str, Any] = {}
    hosts: dict[str, Any] = {}
    trouble = None
    try:
        services = [api.get(f"/v1/services/{s['service']}") for s in api.get("/v1/services")]
        edges = {e["name"]: e for e in api.get("/v1/edges")}
        hosts = {h["name"]: h for h in api.get("/v1/hosts")}
    except Trouble as e:
        trouble = str(e)
    found = fleet.model_dump(mode="json")
    for edge in found["edges"]:
        edge["services"] = edges.get(edge["id"], {}).get("services", {})
        edge["alive"] = edges.get(edge["id"], {}).get("alive", False)
    for host in found["hosts"]:
        host["alive"] = host["id"] in hosts
        host["services"] = hosts.get(host["id"], {}).get("services", {})
    return found | {"services": services, "trouble": trouble}


# -- for people --


def _pid(pid: int | None) -> str:
    return str(pid) if pid else "[red]stopped[/]"


def _alive(yes: bool) -> str:
    return "alive" if yes else "[red]away[/]"


def _versions(service: dict[str, Any]) -> str:
    """``B 3/3  A 3/3``: healthy of registered members, as the edge sees them."""
    ack = service.get("ack")
    if not ack:
        return "[red]no word[/]"
    counts = [f"{v} {ack['healthy'].get(v, 0)}/{n}" for v, n in ack["members"].items()]
    behind = f" [yellow]{escape(service['behind'])}[/]" if service.get("behind") else ""
    return "  ".join(counts) + behind


def _slots(service: dict[str, Any]) -> str:
    status = service["status"]
    shown = [
        f":{s['port']} {s['build'] or '-'} {s['state']}" + (f" {s['live']}/{s['processes']}" if s["build"] else "")
        for s in status["slots"]
    ]
    error = f" [red]{escape(status['error'])}[/]" if status.get("error") else ""
    return "  ".join(shown) + error


def _per_service(services: dict[str, Any], render: Any) -> str:
    return "\n".join(f"{name}: {render(s)}" for name, s in sorted(services.items()))


def show(status: dict[str, Any]) -> None:
    """A compact table on stdout. Tokens are not shown. Of a fleet in containers there are no processes to name."""
    elsewhere = status["balancer"] is not None

    def pid(found: int | None) -> str:
        return "" if elsewhere else _pid(found)

    def agent(part: dict[str, Any]) -> str:
        return _alive(part["alive"]) if elsewhere else _pid(part["pids"]["agent"])

    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for heading in ("part", "where", "agent", "server", "versions (healthy/registered), slots"):
        table.add_column(heading, overflow="fold")
    for e in status["edges"]:
        versions = _per_service(e["services"], _versions)
        table.add_row(e["id"], e["url"], agent(e), pid(e["pids"].get("server")), versions)
    for h in status["hosts"]:
        slots = _per_service(h["services"], _slots)
        table.add_row(h["id"], h["address"], agent(h), pid(h["pids"].get("server")), slots)
    for b in status["barrier"]:
        table.add_row(b["id"], b["url"], "", pid(b["pid"]), "")
    for z in status["zookeeper"]["servers"]:
        table.add_row(z["id"], z["address"], "", pid(z["pid"]), "")
    table.add_row("s3", status["s3"], "", pid(status["s3_pid"]), "")
    if status["prometheus"]:
        table.add_row("prometheus", status["prometheus"], "", pid(status["prometheus_pid"]), "")
    console = Console(highlight=False)
    console.print(table)
    for s in status["services"]:
        console.print(_service(s))
    if pages := [b["url"] for b in status["barrier"] if b["pid"]]:
        console.print(f"page: {pages[0]}/ (pinrail page gives the address with a token)")
    if status["trouble"]:
        console.print(f"[red]the barrier service does not answer: {escape(status['trouble'])}[/]")


def _service(service: dict[str, Any]) -> str:
    plan, rollout = service["plan"], service["rollout"]
    others = [v for v in plan["serving"] if v != plan["default"]]
    words = f"{service['service']}: default [bold]{plan['default'] or 'none'}[/]"
    words += f", also served {', '.join(others)}" if others else ""
    words += f", epoch {plan['epoch']}"
    if rollout:
        words += f"; rollout {rollout['number']} of {rollout['build']} is {rollout['state']}"
        words += "".join(f"\n  waits: {escape(reason)}" for reason in rollout["stalled"])
    return words
