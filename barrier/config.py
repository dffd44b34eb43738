"""The barrier service's own file. Annotated in ``docs/config/barrier.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fleet.config import FileModel, S3Config
from fleet.names import NodeName, Service

#: Of one token, and of one address where none is needed.
REQUESTS_PER_SECOND = 100.0


class TokenEntry(FileModel):
    """One bearer token, hashed at rest: ``sha256`` is the hex digest of the token's bytes."""

    name: NodeName
    role: Literal["read", "deploy", "admin"]
    #: The services that it is good for; empty: all, and what concerns the fleet.
    services: tuple[Service, ...] = ()
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TokensFile(FileModel):
    """``tokens.toml``: a list of ``[[token]]`` tables."""

    token: tuple[TokenEntry, ...] = ()


class BarrierConfig(FileModel):
    name: NodeName
    zookeeper: str
    #: Who this part is to ZooKeeper; None: nobody, and whoever reaches ZooKeeper may write.
    zookeeper_access: Path | None = None
    #: ``host:port`` of the API.
    listen: str = "127.0.0.1:8300"
    tokens: Path
    #: What one token, or one address where none is needed, may ask of this replica; four times that at once.
    requests_per_second: float = Field(default=REQUESTS_PER_SECOND, gt=0)
    every: float = Field(default=2.0, gt=0)
    session_seconds: float = Field(default=10.0, gt=0)
    #: Where builds are looked up before a rollout of them is accepted.
    s3: S3Config = S3Config()
