"""The audit trail: one znode for every change that was asked for through the API. Owns their names and how they read.

An entry is written in the transaction of the change itself: there is never one without the other. Refusals are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from barrier.snapshot import BadPayload, parse
from barrier.store.once import Once
from fleet import log, paths
from fleet.model import Wire
from fleet.names import Build, NodeName, Service
from fleet.zk import Conflict, Create, Op, ZooKeeper

_log = log.get()

#: Entries that the leader lets stand.
KEPT = 1000
#: Entries read from ZooKeeper at once while looking for those of one service.
AT_ONCE = 200


@dataclass(frozen=True)
class By:
    """Who asks for a change, with which role, and why."""

    name: str
    role: str
    reason: str = ""
    #: The call was made with an Idempotency-Key.
    once: Once | None = None


class Entry(Wire):
    """One change. ``at`` is the wall clock of the replica that was asked, for people only."""

    #: Grows with every change; part of the znode's name.
    number: int = 0
    at: float = 0
    by: str = ""
    role: str = ""
    #: configure, remove, deploy, pause, resume, abort, rollback, verdict, withdraw, offer, stage, default, preview,
    #: revoke, leave, return, evict.
    action: str
    #: The same in a sentence.
    what: str
    why: str = ""
    service: Service | None = None
    rollout: int | None = None
    version: Build | None = None
    edge: NodeName | None = None
    #: Of the plan; ``after`` is kept only where the change itself wrote one (see ``led_to``).
    epoch_before: int | None = Field(default=None, ge=0)
    epoch_after: int | None = Field(default=None, ge=0)
    #: The hashed Idempotency-Key that the call had.
    key: str | None = None


def commit(zk: ZooKeeper, ops: Sequence[Op], by: By, action: str, what: str, **facts: Any) -> None:
    """All of ``ops`` and their entry, or nothing. Raises Conflict, and Repeated where the call's key was used."""
    key = by.once.key if by.once else None
    said = {"at": time.time(), "by": by.name, "role": by.role, "why": by.reason, "action": action, "what": what}
    entry = Entry.model_validate(said | facts | {"key": key})
    zk.ensure(paths.AUDIT)
    writes = [*ops, Create(f"{paths.AUDIT}/{paths.AUDIT_PREFIX}", entry.encode(), sequence=True)]
    if by.once is not None:
        zk.ensure(paths.KEYS)
        writes.append(by.once.op())
    try:
        zk.commit(writes)
    except Conflict:
        if by.once is not None:
            by.once.must_be_first(zk)
        raise
    _log.info(f"{by.name} {what}", by=by.name, role=by.role, why=by.reason, action=action, **facts)


def names(zk: ZooKeeper) -> list[str]:
    """Of all entries, oldest first. Their numbers have ten digits, so that they sort."""
    return [n for n in zk.children(paths.AUDIT, watch=False) if n.removeprefix(paths.AUDIT_PREFIX).isdigit()]


def last(zk: ZooKeeper, count: int, wanted: Callable[[Entry], bool]) -> list[Entry]:
    """The last ``count`` that are wanted, newest first."""
    found: list[Entry] = []
    left = names(zk)
    while left and len(found) < count:
        left, batch = left[:-AT_ONCE], left[-AT_ONCE:]
        found += [e for e in reversed(_read(zk, batch)) if wanted(e)]
    return found[:count]


def led_to(found: Sequence[Entry], reached: Mapping[tuple[str, int], int]) -> list[Entry]:
    """``found``, newest first, with the epochs to which the leader took the plan for what was asked of a rollout: up to
    the next entry about that one, or as far as it is (``reached``: service and number -> epoch). Pure.
    """
    upto = dict(reached)
    told = []
    for entry in found:
        after = entry.epoch_after
        if entry.service is not None and entry.rollout is not None:
            about = (entry.service, entry.rollout)
            after = upto.get(about) if after is None else after
            if entry.epoch_before is not None:
                upto[about] = entry.epoch_before
        told.append(entry.model_copy(update={"epoch_after": after}))
    return told


def keys(zk: ZooKeeper, batch: Sequence[str]) -> list[str]:
    """The hashed Idempotency-Keys of those entries' calls."""
    return list(dict.fromkeys(e.key for e in _read(zk, batch) if e.key is not None))


def _read(zk: ZooKeeper, batch: Sequence[str]) -> list[Entry]:
    """One that cannot be read is shown as such, and hides none of the others."""
    nodes = zk.get_many([paths.audit(n) for n in batch])
    found = []
    for name in batch:
        if (node := nodes.get(paths.audit(name))) is None:
            continue  # pruned in between
        number = int(name.removeprefix(paths.AUDIT_PREFIX))
        try:
            found.append(parse(Entry, node, paths.audit(name)).model_copy(update={"number": number}))
        except BadPayload as e:
            found.append(Entry(number=number, action="unreadable", what=str(e)))
    return found
