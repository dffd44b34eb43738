"""Configure and remove services. Owns the skeleton of a service's znodes; never the plan of one that exists."""

from __future__ import annotations

from barrier.snapshot import BadPayload, parse
from barrier.store import audit
from barrier.store.audit import By
from barrier.store.reading import TRIES, Refused, Store
from barrier.store.rollouts import unlocked
from fleet import paths
from fleet.model import Plan, ServiceConfig
from fleet.zk import Conflict, Create, Delete, Op, Set, ZooKeeperTrouble


def configure(store: Store, service: str, config: ServiceConfig, by: By) -> bool:
    """Write the configuration; True when that made the service. Refused where a rollout would be bent by it."""
    for _ in range(TRIES):
        node = store.zk.get(paths.config(service), watch=False)
        try:
            if node is None:
                _create(store, service, config, by)
                return True
            before = parse(ServiceConfig, node, paths.config(service))
            ops: list[Op] = [Set(paths.config(service), config.encode(), node.version)]
            if (before.strategy, before.ports) != (config.strategy, config.ports):
                number = store.active(service)
                if number is not None:
                    raise Refused(
                        "conflict",
                        f"rollout {number} of {service} is active: strategy and ports cannot change under it",
                        active=number,
                    )
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


def _create(store: Store, service: str, config: ServiceConfig, by: By) -> None:
    """The whole skeleton at once: agents then never meet half a service. The plan says that nothing is served."""
    store.zk.ensure(paths.service(service))
    missing = (paths.acks, paths.turns, paths.hosts, paths.serversets, paths.rollouts)
    there = store.zk.get_many([p(service) for p in missing])
    ops: list[Op] = [Create(p(service), b"") for p in missing if p(service) not in there]
    plan = Plan(epoch=1, updated_by="configured")
    if store.zk.get(paths.plan(service), watch=False) is None:
        ops.append(Create(paths.plan(service), plan.encode()))
    if store.zk.get(paths.removed(service), watch=False) is not None:
        ops.append(Delete(paths.removed(service)))
    ops.append(Create(paths.config(service), config.encode()))
    audit.commit(store.zk, ops, by, "configure", f"makes {service}", service=service, epoch_after=plan.epoch)


def remove(store: Store, service: str, by: By) -> None:
    """Everything about the service, its configuration first. A marker stays and tells agents to let go of it."""
    epoch = store.read(service).plan.epoch
    store.zk.ensure(paths.REMOVED)
    for _ in range(TRIES):
        number = store.active(service)
        if number is not None:
            raise Refused("conflict", f"rollout {number} of {service} is active: abort it first", active=number)
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
