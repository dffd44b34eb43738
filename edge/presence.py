"""What this edge writes in ZooKeeper, and nothing else does: that it lives, that barriers wait for it, its acks."""

from __future__ import annotations

import contextlib

from edge.config import EdgeConfig
from fleet import log, paths
from fleet.model import Ack, EdgeInfo
from fleet.zk import Conflict, ZooKeeper, ZooKeeperTrouble

_log = log.get()


class Presence:
    def __init__(self, config: EdgeConfig, zk: ZooKeeper) -> None:
        self._zk = zk
        self._name = config.name
        info = EdgeInfo(name=config.name, engine=config.engine, url=config.url, metrics=config.metrics)
        self._info = info.encode()
        self._started = False
        #: What barriers look at, as it was last said of each service.
        self._said: dict[str, tuple[int, int, int]] = {}

    def register(self) -> bool:
        """Say that this edge lives; whether barriers wait for it."""
        if not self._started:
            self._zk.start()
            self._started = True
        try:
            self._zk.hold_ephemeral(paths.edge(self._name), self._info)
        except Conflict as e:
            raise ZooKeeperTrouble(f"another session holds {paths.edge(self._name)}: {e}") from e
        return self._zk.get(paths.rostered(self._name)) is not None

    def leaving(self) -> bool:
        """An operator takes this edge away: no new requests, and no barrier waits for it afterwards."""
        return self._zk.get(paths.leaving(self._name)) is not None

    def join(self) -> None:
        """From now on barriers wait for this edge: only once the latest plans are applied."""
        with contextlib.suppress(Conflict):
            self._zk.create(paths.rostered(self._name), self._info)

    def acknowledge(self, service: str, ack: Ack) -> None:
        try:
            self._zk.hold_ephemeral(paths.ack(service, self._name), ack.encode())
        except Conflict as e:
            raise ZooKeeperTrouble(f"the ack of {service} was changed by someone else: {e}") from e
        said = (ack.applied, ack.staged, ack.drained)
        if self._said.get(service) != said:
            self._said[service] = said
            _log.info("acknowledged", service=service, applied=ack.applied, staged=ack.staged, drained=ack.drained)
