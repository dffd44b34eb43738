"""What a slot's processes are told to be: written when a slot is filled, read by the launcher and the agent only.

A running pool stays what it was started as, whatever the service's config says meanwhile; so its ports, its
processes and its limits are kept here and not looked up again. Pure.
"""

from __future__ import annotations

from fleet.model import Wire


class ProcessSpec(Wire):
    """One program: what ``hostagent.launch`` makes of it."""

    name: str
    argv: tuple[str, ...]
    cwd: str
    #: Added to what it may see of supervisord's own environment.
    environment: dict[str, str]
    #: ``unix:/path`` or ``host:port``; empty for nginx.
    endpoint: str = ""
    #: Stale sockets of a predecessor that was killed; removed before the program starts.
    unlink: tuple[str, ...] = ()
    #: Where its process id is noted, so that what it leaves behind when killed can be found.
    pidfile: str
    #: Sent to the program when supervisord itself dies.
    orphaned: int = 15
    umask: int = 0o022
    #: Number of its user and group; None: who started it.
    user: int | None = None


class SlotSpec(Wire):
    service: str
    slot: int
    build: str
    address: str
    port: int
    #: Unix socket of nginx's own counters.
    stub: str
    pool: tuple[ProcessSpec, ...]
    nginx: ProcessSpec
    stop_seconds: float
    #: The environment that post-install made and the pool uses, by its name below ``venvs``; empty for none.
    venv: str = ""
    #: Where the pool's sockets are; empty: beside the process files.
    sockets: str = ""
    #: Patterns of those variables in supervisord's own environment that its programs see.
    inherit: tuple[str, ...] = ("*",)
    #: Who, beside us, may use the sockets: nginx's group, where its workers are not of our user.
    socket_group: str = ""

    @property
    def programs(self) -> tuple[ProcessSpec, ...]:
        return (*self.pool, self.nginx)

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"
