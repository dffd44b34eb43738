"""The host agent: every service's cycle, once around, on one look at supervisord.

Owns the lock that keeps a second agent out of the host's directory. The pools are supervisord's; when the agent ends,
however it ends, they go on serving, and the next agent finds them.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from fleet import log, paths
from fleet.config import BadConfig
from fleet.download import Pace
from fleet.files import sweep_unfinished
from fleet.loop import Said, Trouble, Wake
from fleet.s3 import ObjectStore
from fleet.zk import Conflict, ZooKeeper, ZooKeeperTrouble
from hostagent import machine
from hostagent.config import HostConfig
from hostagent.environments import Environments
from hostagent.layout import Layout
from hostagent.metrics import Metrics
from hostagent.service import ServiceAgent
from hostagent.slots import Slots
from hostagent.steps import Steps
from hostagent.supervisor import Supervisor, SupervisorGone
from hostagent.trust import Trust, pinned
from hostagent.unpack import sweep
from hostagent.users import Users

_log = log.get()
#: Seconds that steps get to notice that the agent ends.
_JOIN = 3.0


class AlreadyRunning(BadConfig):
    """Another agent works in this directory."""


class Lock:
    """Held until the process ends, by whatever way."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            pid = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            hint = "end that one first, or give this one another `directory`"
            raise AlreadyRunning(f"another agent, process {pid}, works in {path.parent}: {hint}") from e
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._fd)


class HostAgent:
    """``fleet.loop`` runs it. Raises AlreadyRunning or BadConfig when it cannot begin."""

    def __init__(self, config: HostConfig, zk: ZooKeeper, store: ObjectStore, metrics: Metrics, wake: Wake) -> None:
        self._config = config
        self._layout = Layout.of(config)
        self._lock = Lock(self._layout.agent_lock)
        self._layout.conf_d.mkdir(parents=True, exist_ok=True)
        self._zk = zk
        self._store = store
        self._trust = Trust(pinned(config.signing_keys), self._layout, store)
        limit = config.fetch_bytes_per_second
        self._pace = Pace(limit) if limit else None
        self._metrics = metrics
        self._wake = wake
        self._supervisor = Supervisor(self._layout.supervisor_socket)
        self._users = Users(config, self._layout)
        self._slots = Slots(config, self._layout, self._supervisor, self._users)
        self._services: dict[str, ServiceAgent] = {}
        for releases in self._layout.releases("x").parent.glob("*"):
            sweep(releases)
        sweep_unfinished(self._layout.written())
        self._environments = Environments(self._layout)
        self._environments.sweep()

    def cycle(self) -> str:
        try:
            return self._cycle()
        except ZooKeeperTrouble:
            for agent in self._services.values():
                agent.suspend()
            raise
        except Conflict as e:
            raise Trouble(f"somebody else changed it meanwhile: {e}") from e

    def _cycle(self) -> str:
        removed = set(self._zk.children(paths.REMOVED))
        self._meet(set(self._zk.children(paths.SERVICES)) - removed)
        for agent in self._services.values():
            agent.collect()
        try:
            running = machine.groups(self._supervisor.processes())
        except SupervisorGone as gone:
            for agent in self._services.values():
                agent.unserved(str(gone))
            raise
        self._meet(removed & running.keys())
        said: dict[str, str] = {}
        troubles: dict[str, str] = {}
        for service, agent in list(self._services.items()):
            try:
                if service not in removed:
                    said[service] = agent.cycle(running.get(service, {}), self._taken(service))
                elif agent.leave(running.get(service, {})):
                    del self._services[service]
                    _log.info("let go of a service that was removed", service=service)
                    log.belongs(service, None)
                else:
                    said[service] = f"{service}: was removed, is being stopped"
            except ZooKeeperTrouble:
                raise
            except Trouble as trouble:
                troubles[service] = f"{service}: {trouble}"
            except OSError as e:  # the disk; what is on it of one service keeps no other from being looked after
                troubles[service] = f"{service}: {self._layout.said(e)}"
        self._metrics.slots((name, slot) for name, agent in self._services.items() for slot in agent.seen)
        if troubles:
            raise Trouble(Said(troubles))
        return Said(said, otherwise="no services")

    def _taken(self, service: str) -> dict[int, str]:
        """Ports on which other services run."""
        others = ((name, slot) for name, other in self._services.items() if name != service for slot in other.seen)
        return {slot.port: name for name, slot in others if slot.processes}

    def _meet(self, services: set[str]) -> None:
        for service in sorted(services - self._services.keys()):
            self._services[service] = self._new(service)

    def _new(self, service: str) -> ServiceAgent:
        steps = Steps(
            service,
            self._config,
            self._layout,
            self._supervisor,
            self._slots,
            self._environments,
            self._users,
            self._store,
            self._trust,
            self._pace,
            self._metrics,
        )
        return ServiceAgent(
            service, self._config, self._layout, self._zk, self._slots, steps, self._metrics, self._wake
        )

    def close(self) -> None:
        """Steps are given up, pools left alone. The caller ends the ZooKeeper session."""
        for agent in self._services.values():
            agent.close()
        deadline = time.monotonic() + _JOIN
        for agent in self._services.values():
            agent.join(max(0.0, deadline - time.monotonic()))
        self._lock.release()
