"""Configure and remove services. Owns the skeleton of a service's znodes; never the plan of one that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from barrier import matches
from barrier.snapshot import BadPayload, parse
from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from barrier.store.rollouts import unlocked
from fleet import paths
from fleet.model import Plan, ServiceConfig
from fleet.zk import Check, Conflict, Create, Delete, Op, Set, ZooKeeperTrouble


def configure(
    store: Store,
    service: str,
    config: ServiceConfig,
    by: By,
    *,
    confined: bool = False,
    expected_epoch: int | None = None,
) -> bool:
    """Write the configuration; True when that made the service. Refused where a rollout would be bent by it.

    ``confined``: the token is for some services only, and must not change what others get.
    """
    for _ in range(TRIES):
        node = store.zk.get(paths.config(service), watch=False)
        planned = store.zk.get(paths.plan(service), watch=False) if expected_epoch is not None else None
        if expected_epoch is not None:
            store.must_be_at(service, parse(Plan, planned, paths.plan(service)) if planned else Plan(), expected_epoch)
        try:
            if node is None:
                store.zk.ensure(paths.service(service))
                alone = _alone(store, service, config, None, confined=confined)
                _create(store, service, config, by, alone)
                return True
            before = parse(ServiceConfig, node, paths.config(service))
            ops: list[Op] = [Set(paths.config(service), config.encode(), node.version)]
            ops += _alone(store, service, config, before, confined=confined)
            ops += [Check(paths.plan(service), planned.version)] if planned is not None else []
            if (before.strategy, before.ports) != (config.strategy, config.ports):
                store.must_be_idle(service, "strategy and ports cannot change under it")
                ops += unlocked(service)
            epoch = _epoch(store, service)
            what = f"configures {_changed(before, config)} of {service}"
            audit.commit(store.zk, ops, by, "configure", what, service=service, epoch_before=epoch, epoch_after=epoch)
            return False
        except Conflict:
            continue
    raise ZooKeeperTrouble(f"the configuration of {service} keeps changing under this request")


def _epoch(store: Store, service: str) -> int | None:
    """None where the plan cannot be read: that must not keep anybody from configuring the service."""
    try:
        return store.plan(service).epoch
    except BadPayload:
        return None


def _changed(before: ServiceConfig, after: ServiceConfig) -> str:
    keys = [k for k in ServiceConfig.model_fields if getattr(before, k) != getattr(after, k)]
    return ", ".join(keys) or "nothing new"


def _alone(
    store: Store, service: str, config: ServiceConfig, before: ServiceConfig | None, *, confined: bool
) -> list[Op]:
    """Refused where ``config`` gets into another service's way; what makes that hold until it is written.

    Whoever changes a match changes the services' common parent: two such changes at once do not both pass.
    """
    if before is not None and before.match == config.match and not confined:
        return []
    parent = store.zk.get(paths.SERVICES, watch=False)
    others = {s: c for s, c in store.configs().items() if s != service}
    if (found := matches.clash(config, others)) is not None:
        other, match = found
        hint = "give it a host or a path of its own, or match = [] where no edge stands before it"
        raise Refused("conflict", f"match: {matches.shown(match)} is what {other} matches too: {hint}", service=other)
    if confined:
        _confine(config, before, others)
    return [Set(paths.SERVICES, parent.data, parent.version)] if parent is not None else []


def _confine(config: ServiceConfig, before: ServiceConfig | None, others: Mapping[str, ServiceConfig]) -> None:
    """Raises Refused: what only a token for all services may do."""
    new = [m for m in config.match if before is None or m not in before.match]
    hint = "only a token for all services may do that"
    if (found := matches.theft(new, others)) is not None:
        other, match = found
        raise Refused("forbidden", f"match: {matches.shown(match)} takes requests from {other}; {hint}", service=other)
    ports = set(config.ports) - set(before.ports if before else ())
    for other, theirs in others.items():
        if taken := sorted(ports & set(theirs.ports)):
            raise Refused("forbidden", f"ports: {taken[0]} is a port of {other} on every host; {hint}", service=other)
    if config.when_stalled == "evict" and (before is None or before.when_stalled != "evict"):
        raise Refused("forbidden", f"when_stalled: evict takes an edge off the roster of all services; {hint}")


def _create(store: Store, service: str, config: ServiceConfig, by: By, alone: Sequence[Op]) -> None:
    """The whole skeleton at once: agents then never meet half a service. The plan says that nothing is served."""
    missing = (paths.acks, paths.turns, paths.hosts, paths.serversets, paths.rollouts)
    there = store.zk.get_many([p(service) for p in missing])
    ops: list[Op] = [*alone, *(Create(p(service), b"") for p in missing if p(service) not in there)]
    plan = Plan(epoch=1, updated_by="configured")
    if store.zk.get(paths.plan(service), watch=False) is None:
        ops.append(Create(paths.plan(service), plan.encode()))
    if store.zk.get(paths.removed(service), watch=False) is not None:
        ops.append(Delete(paths.removed(service)))
    ops.append(Create(paths.config(service), config.encode()))
    audit.commit(store.zk, ops, by, "configure", f"makes {service}", service=service, epoch_after=plan.epoch)


def remove(store: Store, service: str, by: By) -> None:
    """Everything about the service, its configuration first. A marker stays and tells agents to let go of it."""
    epoch = store.head(service).plan.epoch
    store.zk.ensure(paths.REMOVED)
    for _ in range(TRIES):
        store.must_be_idle(service, "abort it first")
        try:
            if store.zk.get(paths.config(service), watch=False) is not None:
                marker = Create(paths.removed(service), b"")
                ops = [*unlocked(service), marker, Delete(paths.config(service))]
                what = f"removes {service}"
                audit.commit(store.zk, ops, by, "remove", what, service=service, epoch_before=epoch)
            _remove_tree(store, paths.service(service))
            return
        except Conflict:
            continue  # an agent wrote below it before it saw that the service is gone
    raise ZooKeeperTrouble(f"{service} is no longer configured, but agents still write below it: try again")


def _remove_tree(store: Store, path: str) -> None:
    for name in store.zk.children(path, watch=False):
        _remove_tree(store, f"{path}/{name}")
    store.zk.delete(path)
