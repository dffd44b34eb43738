"""Whose turn it is: which hosts may act on a service's ``enabled`` now. Pure.

The limit (restart concurrency) counts hosts that are in their turn and not done. A host that failed in its turn keeps
it, to try again, without counting: what it had to lose it has lost. A host that vanished in its turn goes on
counting, so that a release which kills its hosts does not walk through the fleet, until it is given up (``lost``): then
it is a failure like others, and too many of those pause the rollout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fleet.model import HostStatus, Turn, Waves


@dataclass(frozen=True)
class Changes:
    grant: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()


def limit(waves: Waves, hosts: int) -> int:
    """How many hosts may be in their turn at once; always at least one."""
    return waves.concurrency if waves.concurrency is not None else max(1, hosts * waves.percent // 100)


def failed(host: HostStatus, serial: int) -> bool:
    return host.error is not None and host.failed_serial == serial and host.serial < serial


def decide(
    serial: int,
    hosts: Mapping[str, HostStatus],
    turns: Mapping[str, Turn],
    waves: Waves,
    *,
    granting: bool = True,
    everyone: bool = False,
    lost: Collection[str] = (),
) -> Changes:
    """Turns to give and to take back for ``serial``.

    ``granting`` False: give none (the rollout is paused). ``everyone``: all at once, as nothing is served that could
    suffer. ``lost``: hosts that have been away for so long that they count as failed.
    """
    over = {
        name
        for name, turn in turns.items()
        if turn.serial < serial or (name in hosts and hosts[name].serial >= turn.serial)
    }
    if not granting or serial < 1:
        return Changes(revoke=tuple(sorted(over)))
    holding = turns.keys() - over
    busy = sum(1 for n in holding if (not failed(hosts[n], serial) if n in hosts else n not in lost))
    waiting = sorted(name for name, host in hosts.items() if host.serial < serial and name not in holding)
    room = len(waiting) if everyone else max(0, limit(waves, len(hosts)) - busy)
    return Changes(grant=tuple(waiting[:room]), revoke=tuple(sorted(over)))
