"""Whose turn it is: which hosts may act on a service's ``enabled`` now. Pure.

The limit (restart concurrency) counts hosts that are in their turn and not done. A host that failed in its turn keeps
it, to try again, without counting: what it had to lose it has lost. A host that vanished in its turn goes on
counting, so that a release which kills its hosts does not walk through the fleet, until it is given up (``lost``): then
it is a failure like others, and too many of those pause the rollout.

A turn that is done lasts until everybody has had one, and for the same reason: a release may kill its host, or its own
processes, only after it was found well. Such a host counts as one that is not done yet, and is given up as such.

So what serves is never less than all hosts but the limit and the failures that are tolerated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fleet.model import Enabled, Health, HostStatus, Slot, SlotState, Turn, Waves

_SERVES = (SlotState.SERVING, SlotState.DEGRADED)


@dataclass(frozen=True)
class Changes:
    grant: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()


def limit(waves: Waves, hosts: int) -> int:
    """How many hosts may be in their turn at once; always at least one."""
    return waves.concurrency if waves.concurrency is not None else max(1, hosts * waves.percent // 100)


def failed(host: HostStatus, serial: int) -> bool:
    return host.error is not None and host.failed_serial == serial and host.serial < serial


def down(enabled: Enabled, hosts: Mapping[str, HostStatus], health: Health) -> frozenset[str]:
    """Hosts that lack something: where they are done, any of the builds that they should serve; else all of them."""
    builds = {b.build for b in enabled.builds}
    found = []
    for name, host in hosts.items():
        if host.serial >= enabled.serial:
            if not builds.issubset([s.build for s in host.slots if _serves(s, health)]):
                found.append(name)
        elif not any(_serves(s, health) for s in host.slots):
            found.append(name)
    return frozenset(found)


def _serves(slot: Slot, health: Health) -> bool:
    return slot.live > 0 and slot.state in _SERVES and health.enough(slot.live, slot.processes)


def missed(host: HostStatus | None) -> str:
    """Why a host that was in its turn counts as one that is not done."""
    if host is None:
        return "went away during its turn"
    return host.error or "does not serve any more what it had started"


def decide(
    serial: int,
    hosts: Mapping[str, HostStatus],
    turns: Mapping[str, Turn],
    waves: Waves,
    *,
    granting: bool = True,
    everyone: bool = False,
    down: Collection[str] = (),
    lost: Collection[str] = (),
) -> Changes:
    """Turns to give and to take back for ``serial``.

    ``granting`` False: give none (the rollout is paused). ``everyone``: all at once, as nothing is served that could
    suffer. ``down``: as that function says; who has nothing to lose comes first. ``lost``: hosts that have been away or
    down for so long that they count as failed.
    """
    held = {name for name, turn in turns.items() if turn.serial >= serial}
    done = {name for name in held if name in hosts and hosts[name].serial >= turns[name].serial}
    waiting = [name for name, host in hosts.items() if host.serial < serial and name not in held]
    over = turns.keys() - held | (done if not waiting else set())
    if not granting or serial < 1:
        return Changes(revoke=tuple(sorted(over)))
    failures = {name for name in held - done if name in hosts and failed(hosts[name], serial)}
    fallen = done.intersection(down)
    at_work = held - done - failures | fallen
    if len(failures | fallen.intersection(lost)) > waves.max_failures:
        # They can be mended, and go on then. Until that nothing more is put at stake, be there a rollout or not.
        waiting = [name for name in waiting if name in down]
    waiting.sort(key=lambda name: (name not in down, name))
    room = len(waiting) if everyone else max(0, limit(waves, len(hosts)) - len(at_work.difference(lost)))
    return Changes(grant=tuple(waiting[:room]), revoke=tuple(sorted(over)))
