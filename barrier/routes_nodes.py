"""Endpoints about edges and hosts."""

from __future__ import annotations

from fastapi import APIRouter

from barrier import predicates, snapshot
from barrier.auth import Principal
from barrier.bodies import EdgeService, EdgeView, Evicted, Eviction, HostService, HostView, Leaving, Why
from barrier.context import Api, Connected, Deployer, Reader
from barrier.predicates import Edges
from barrier.routing import Route
from barrier.snapshot import BadPayload, Snapshot
from barrier.store import roster
from fleet import paths
from fleet.names import NodeName

router = APIRouter(prefix="/v1", tags=["fleet"], route_class=Route)


def _snapshots(api: Api, who: Principal) -> dict[str, Snapshot]:
    found = {}
    for name in filter(who.reaches, api.store.services()):
        try:
            snap = snapshot.read(api.store.zk, api.store.recall, name, watch=False)
        except BadPayload:
            continue  # what cannot be read hides no other service; `GET /v1/services` says which and why
        if snap is not None:  # it may have been removed in between
            found[name] = snap
    return found


def _edge_service(snap: Snapshot, edge: str) -> EdgeService:
    alone = Edges((edge,), frozenset(snap.fleet.alive), snap.acks)
    missing = predicates.staged(alone, snap.plan.epoch)
    return EdgeService(ack=snap.acks.get(edge), behind=missing[0].why if missing else None)


@router.get("/edges")
def list_edges(api: Connected, who: Reader) -> list[EdgeView]:
    """Every edge that barriers wait for or that lives, and how far it is with each service."""
    fleet = api.store.fleet()
    leaving = api.store.zk.children(paths.LEAVING, watch=False)
    services = _snapshots(api, who)
    return [
        EdgeView(
            name=name,
            rostered=name in fleet.roster,
            alive=name in fleet.alive,
            leaving=name in leaving,
            engine=info.engine,
            url=info.url,
            metrics=info.metrics,
            services={s: _edge_service(snap, name) for s, snap in services.items()},
        )
        for name, info in snapshot.read_edges(api.store.recall, fleet).items()
    ]


@router.get("/hosts")
def list_hosts(api: Connected, who: Reader) -> list[HostView]:
    """Every host that lives, and what it runs of each service."""
    hosts: dict[str, dict[str, HostService]] = {}
    for service, snap in _snapshots(api, who).items():
        for name, status in snap.hosts.items():
            wanted = snap.roles.get(status.role, snap.enabled).serial
            shown = HostService(status=status, wanted=wanted, turn=snap.turns.get(name))
            hosts.setdefault(name, {})[service] = shown
    return [HostView(name=n, services=s) for n, s in sorted(hosts.items())]


@router.post("/edges/{edge}/evict")
def evict(edge: NodeName, body: Eviction, api: Connected, who: Deployer) -> Evicted:
    """Barriers no longer wait for the edge: whoever asks this says that no user's request reaches it any more."""
    who.must_reach(None)
    rostered = roster.evict(api.store, edge, who.because(body.reason))
    return Evicted(edge=edge, rostered=rostered, alive=edge in api.store.fleet().alive)


def _leaving(api: Api, edge: str) -> Leaving:
    fleet = api.store.fleet()
    there = edge in api.store.zk.children(paths.LEAVING, watch=False)
    return Leaving(edge=edge, leaving=there, rostered=edge in fleet.roster, alive=edge in fleet.alive)


@router.post("/edges/{edge}/leave")
def leave(edge: NodeName, api: Connected, who: Deployer, body: Why | None = None) -> Leaving:
    """The edge's health page turns red, so that a load balancer takes it out. When that has happened, evict it."""
    who.must_reach(None)
    roster.leave(api.store, edge, who.because(body.reason if body else ""))
    return _leaving(api, edge)


@router.post("/edges/{edge}/return")
def come_back(edge: NodeName, api: Connected, who: Deployer, body: Why | None = None) -> Leaving:
    """An edge that was to leave may join again; it does so by itself as soon as it is up to date."""
    who.must_reach(None)
    roster.come_back(api.store, edge, who.because(body.reason if body else ""))
    return _leaving(api, edge)
