"""A host's own file: only who it is. What it runs lives in ZooKeeper. Annotated in ``docs/config/host.toml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet.config import FileModel, S3Config
from fleet.names import NodeName


class HostConfig(FileModel):
    name: NodeName
    role: NodeName = "default"
    #: The address that edges reach this host's slots on.
    address: str
    zookeeper: str
    #: Releases, slots and state.
    directory: Path
    #: Unix sockets; must stay short (a socket's path holds 107 bytes). None: ``<directory>/run``.
    run: Path | None = None
    metrics: str = "127.0.0.1:9102"
    #: Prepended to PATH for services, and where ``{python}`` is looked for.
    path: tuple[Path, ...] = ()
    #: nginx's worker user when the agent is root.
    nginx_user: str = "www-data"
    every: float = Field(default=2.0, gt=0)
    session_seconds: float = Field(default=10.0, gt=0)
    s3: S3Config = S3Config()
