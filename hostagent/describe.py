"""What a slot's processes are to be: from the service's config and the host's file to a ``SlotSpec``. Writes nothing.

Looks at the disk for what post-install made and which ports other slots have, and at this machine for free ports.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fleet.files import read_or_none
from fleet.loop import Trouble
from fleet.model import ServiceConfig, decode
from hostagent import environments, nginx, search, strays
from hostagent.config import HostConfig
from hostagent.layout import Layout
from hostagent.ports import RANGE, free
from hostagent.spec import ProcessSpec, SlotSpec
from hostagent.surroundings import SAFE
from hostagent.users import Users


class NoPorts(Trouble):
    """Too few are free for the pool."""


class Describe:
    def __init__(self, config: HostConfig, layout: Layout, users: Users) -> None:
        self._config = config
        self._layout = layout
        self._users = users

    def slot(self, service: str, slot: int, build: str, config: ServiceConfig) -> SlotSpec:
        run, sockets = self._layout.slot_run(service, slot), self._layout.sockets(service, slot)
        pool = config.pool
        port = config.ports[slot]
        venv = environments.of(self._layout, service, build, pool)
        made = self._layout.venv(venv) if venv else None
        path = search.path(self._config.path)
        environment = {
            "HOME": str(self._layout.home(service)),
            **pool.environment,
            "PATH": f"{made / 'bin'}{os.pathsep}{path}" if made else path,
            **({"PINRAIL_INSTALL": str(made)} if made else {}),
            "PINRAIL_VERSION": build,
            "PINRAIL_HOST": self._config.name,
            "PINRAIL_SLOT": str(slot),
            strays.MARK: str(run),
            "NEXT_DEPLOYMENT_ID": build,
        }
        ports = self._ports(pool.processes, port) if pool.listen == "port" else []
        argv = self._command(pool.command, made / "bin" if made else None)
        processes = []
        for i in range(pool.processes):
            own = sockets / f"p{i}.sock"
            where = {"PORT": str(ports[i])} if ports else {"SOCKET": str(own)}
            processes.append(
                ProcessSpec(
                    name=f"p{i}",
                    argv=argv,
                    cwd=str(self._layout.release(service, build)),
                    environment={**environment, **where},
                    endpoint=f"127.0.0.1:{ports[i]}" if ports else f"unix:{own}",
                    unlink=() if ports else (str(own),),
                    pidfile=str(run / f"p{i}.pid"),
                    orphaned=signal.SIGTERM,
                    umask=0o007 if self._socket_group() else 0o022,
                    user=self._users.of(service),
                )
            )
        prefix = self._layout.nginx_prefix(service, slot)
        stub = run / "stub.sock"
        front = ProcessSpec(
            name="nginx",
            argv=nginx.argv(nginx.program(self._config.path), prefix),
            cwd=str(prefix),
            environment={},
            unlink=(str(stub),),
            pidfile=str(run / "nginx.pid"),
            orphaned=signal.SIGTERM,  # a KILL would leave its workers
        )
        return SlotSpec(
            service=service,
            slot=slot,
            build=build,
            address=self._config.address,
            port=port,
            stub=str(stub),
            pool=tuple(processes),
            nginx=front,
            stop_seconds=pool.stop_seconds,
            venv=venv,
            sockets=str(sockets),
            inherit=(*SAFE, *self._config.inherit),
            socket_group=self._socket_group(),
        )

    def _socket_group(self) -> str:
        """nginx's group, when its workers are somebody else than we are. By convention named as its user."""
        return self._config.nginx_user if os.geteuid() == 0 and self._config.nginx_user != "root" else ""

    def _command(self, command: tuple[str, ...], bin_: Path | None) -> tuple[str, ...]:
        """``bin_``: of what post-install made."""
        if not any("{python}" in a for a in command):
            return command
        own = bin_ / "python" if bin_ else None
        python = str(own) if own and own.exists() else search.python(self._config.path)
        return tuple(a.replace("{python}", python) for a in command)

    def _ports(self, count: int, port: int) -> list[int]:
        """Free loopback ports that no slot of this host was given."""
        taken = {
            p.endpoint
            for file in self._layout.directory.glob("slots/*/*/spec.json")
            if (spec := decode(SlotSpec, read_or_none(file)))
            for p in spec.pool
        }
        found = free(count, taken, f"{self._config.address}:{port}")
        if len(found) < count:
            raise NoPorts(f"no {count} loopback ports are free from {RANGE.start} to {RANGE.stop - 1}")
        return found
