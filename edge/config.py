"""An edge's own file: who it is and where its Varnish or nginx listens. Annotated in ``docs/config/edge.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fleet.config import FileModel
from fleet.names import NodeName

#: What may be given once or several times.
OneOrMore = str | Annotated[tuple[str, ...], Field(min_length=1)]


def each(given: OneOrMore) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


class VarnishConfig(FileModel):
    #: ``host:port`` for requests, ``,PROXY`` behind it where those begin with PROXY's preamble; each is a -a.
    listen: OneOrMore = "0.0.0.0:80"
    #: ``host:port`` of the command-line interface (-T).
    admin: str = "127.0.0.1:6082"
    program: str = "varnishd"
    #: -n; None: ``<directory>/varnish``. Must be short enough for nothing but itself; no sockets live in it.
    workdir: Path | None = None
    #: Each is a -s.
    storage: OneOrMore = "malloc,256m"
    #: tcc where it is installed, else gcc; or the one that is named.
    compiler: Literal["auto", "tcc", "gcc"] = "auto"
    #: Directory of the operator's own VCL, ``SERVICE.vcl`` in it; None: there is none.
    own: Path | None = None
    #: auto: what varnishd chooses. none: for fleets in directories that Varnish's own user cannot read.
    jail: Literal["auto", "none"] = "auto"
    #: Further ``-p`` parameters.
    parameters: dict[str, str] = Field(default_factory=dict)


class NginxConfig(FileModel):
    #: ``host:port`` for requests, and of the agent's own door (keep that on loopback).
    listen: str = "0.0.0.0:80"
    admin: str = "127.0.0.1:6082"
    program: str = "nginx"
    #: As whom workers run, where nginx is started by root; they read ``directory``.
    user: str = "www-data"
    #: None: one for each core.
    workers: int | None = Field(default=None, ge=1, le=512)
    #: answers: each answer's stamp is checked, which needs njs. hosts: hosts refuse by themselves; for Pinrail's only.
    attest: Literal["answers", "hosts"] = "answers"
    #: Seconds that clients get to close their connections before a reload cuts the idle ones.
    close_seconds: float = Field(default=2.5, ge=0, le=60)
    #: Seconds that requests get to end in workers of an older configuration; then they are cut.
    drain_seconds: int = Field(default=120, ge=1, le=86400)


class Hook(FileModel):
    """A program of the operator's, run after each commit."""

    argv: tuple[str, ...] = Field(min_length=1)
    #: Seconds after which it is killed with all that it started.
    seconds: float = Field(default=10.0, gt=0, le=3600)


class EdgeConfig(FileModel):
    name: NodeName
    engine: Literal["varnish", "nginx"] = "varnish"
    zookeeper: str
    #: Who this part is to ZooKeeper; None: nobody, and whoever reaches ZooKeeper may write.
    zookeeper_access: Path | None = None
    #: State that must survive a restart: last good set, boot file, CLI secret.
    directory: Path
    #: ``host:port`` of ``/metrics`` and the agent's own ``/healthz``.
    metrics: str = "127.0.0.1:9101"
    #: Where users reach this edge, as people should see it.
    url: str = ""
    #: Seconds between looks when nothing wakes the agent.
    every: float = Field(default=2.0, gt=0)
    session_seconds: float = Field(default=10.0, gt=0)
    #: Run after each commit of a service, in this order; none of them can hold one up.
    on_commit: tuple[Hook, ...] = ()
    varnish: VarnishConfig = VarnishConfig()
    nginx: NginxConfig = NginxConfig()
