"""An edge's own file: who it is and where its Varnish listens. Annotated in ``docs/config/edge.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from fleet.config import FileModel
from fleet.names import NodeName


class VarnishConfig(FileModel):
    #: ``host:port`` for requests (-a) and for the command-line interface (-T).
    listen: str = "0.0.0.0:80"
    admin: str = "127.0.0.1:6082"
    program: str = "varnishd"
    #: -n; None: ``<directory>/varnish``. Must be short enough for nothing but itself; no sockets live in it.
    workdir: Path | None = None
    storage: str = "malloc,256m"
    #: tcc where it is installed, else gcc; or the one that is named.
    compiler: Literal["auto", "tcc", "gcc"] = "auto"
    #: auto: what varnishd chooses. none: for fleets in directories that Varnish's own user cannot read.
    jail: Literal["auto", "none"] = "auto"
    #: Further ``-p`` parameters.
    parameters: dict[str, str] = Field(default_factory=dict)


class EdgeConfig(FileModel):
    name: NodeName
    engine: Literal["varnish"] = "varnish"
    zookeeper: str
    #: State that must survive a restart: last good set, boot file, CLI secret.
    directory: Path
    #: ``host:port`` of ``/metrics`` and the agent's own ``/healthz``.
    metrics: str = "127.0.0.1:9101"
    #: Where users reach this edge, as people should see it.
    url: str = ""
    #: Seconds between looks when nothing wakes the agent.
    every: float = Field(default=2.0, gt=0)
    session_seconds: float = Field(default=10.0, gt=0)
    varnish: VarnishConfig = VarnishConfig()
