"""Every service as ZooKeeper has it, taken into the catalog. The same for each engine."""

from __future__ import annotations

from edge.catalog import Catalog
from edge.view import Seen, View
from fleet import log, paths
from fleet.zk import ZooKeeper


class Reading:
    def __init__(self, zk: ZooKeeper, catalog: Catalog) -> None:
        self._zk = zk
        self._view = View(zk)
        self._catalog = catalog
        self._session = 0

    def take(self) -> float | None:
        """Seconds after which there will be something to do again without any news; None: there will not.

        Raises ZooKeeperTrouble; the catalog is then as it was.
        """
        seen = self._read()
        removed = self._view.removed() if self._catalog.missing(seen) else frozenset()
        due = self._catalog.take(seen, removed)
        for name in removed:
            log.belongs(name, None)
        for name in self._catalog:
            log.belongs(name, self._catalog[name].plan.rollout)
        return due

    def commits(self) -> list[str]:
        """The services whose plan has committed what it had staged, and did nothing else. That is adopted here, in one
        round trip to ZooKeeper: when it takes effect matters more than for anything else that is read."""
        if not self._zk.connected:
            return []
        plans = self._view.plans([name for name in self._catalog if self._catalog[name].plan.staged])
        return [name for name, plan in plans.items() if self._catalog.commit(name, plan)]

    def _read(self) -> dict[str, Seen]:
        """A new session's server may lag behind what this edge was told in its last one; so may one whose plan is older
        than the one that is known. It catches up first; a plan that is older still has really been put back."""
        if self._zk.session != self._session:
            self._zk.sync(paths.SERVICES)
            self._session = self._zk.session
        seen = self._view.services()
        if self._catalog.lags(seen):
            self._zk.sync(paths.SERVICES)
            seen = self._view.services()
        return seen
