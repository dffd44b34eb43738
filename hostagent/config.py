"""A host's own file: only who it is. What it runs lives in ZooKeeper. Annotated in ``docs/config/host.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from fleet.config import FileModel, S3Config
from fleet.names import NodeName


class HostConfig(FileModel):
    name: NodeName
    role: NodeName = "default"
    #: The address that edges reach this host's slots on.
    address: str
    zookeeper: str
    #: Who this part is to ZooKeeper; None: nobody, and whoever reaches ZooKeeper may write.
    zookeeper_access: Path | None = None
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
    #: Public keys of those whose builds this host runs (``ed25519:...``); none: it asks for no signature.
    signing_keys: tuple[str, ...] = ()
    #: As root: run each service as a user of its own, with a number from ``service_uids`` (both ends included).
    service_users: bool = True
    service_uids: tuple[int, int] = (70000, 79999)
    #: Patterns of environment variables of this host that services may see, beside language, time zone and PATH.
    inherit: tuple[str, ...] = ()
    #: Archives of unpacked builds that are kept for each service, so that only what is new of the next is fetched.
    keep_archives: int = Field(default=2, ge=0, le=100)
    #: Bytes a second that fetching may take, for all services together; 0: what there is.
    fetch_bytes_per_second: int = Field(default=0, ge=0)
    #: Bytes of the disk that no build may take.
    disk_reserve: int = Field(default=256 * 1024 * 1024, ge=0)
    s3: S3Config = S3Config()

    @model_validator(mode="after")
    def _uids(self) -> Self:
        first, last = self.service_uids
        if not 0 < first <= last < 2**32 - 1:
            raise ValueError(f"service_uids must be two numbers of users, the lower first, got {first} and {last}")
        return self
