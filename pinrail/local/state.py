"""What is known of a local fleet: ``fleet.json`` in its directory, the same object that ``status --json`` prints.

Owns the file, its format and how the directory is found. It holds tokens, so it is readable by its owner only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.config import BadConfig
from fleet.files import read_or_none, write_atomic

FILE = "fleet.json"
DEFAULT = Path(".pinrail")

Pids = dict[str, int | None]
#: What an edge's server is.
Engine = Literal["varnish", "nginx"]


class Part(BaseModel):
    """Base of the fleet's records. Mutable: pids and phase are filled in as they become known."""

    model_config = ConfigDict(extra="ignore")


class EdgeState(Part):
    id: str
    engine: Engine = "varnish"
    url: str
    #: ``host:port`` of Varnish's command line, or of the agent's door to nginx.
    admin: str
    #: URL of the agent's metrics.
    metrics: str
    pids: Pids = Field(default_factory=dict)


class HostState(Part):
    id: str
    #: The host's own loopback address.
    address: str
    #: Where its first slot of the sample service listens, once it runs.
    url: str
    metrics: str
    pids: Pids = Field(default_factory=dict)


class BarrierState(Part):
    id: str
    url: str
    pid: int | None = None


class ZooKeeperServer(Part):
    """``zookeeper``, or ``zookeeper-1`` and so on of an ensemble."""

    id: str
    #: ``host:port`` for its clients.
    address: str
    #: Ports for the others of its ensemble: what the leader says, elections. None where it is alone.
    peers: tuple[int, int] | None = None
    pid: int | None = None


class ZooKeeperState(Part):
    #: ``host:port[,host:port]/chroot``.
    connect: str
    #: The first server's.
    pid: int | None = None
    servers: list[ZooKeeperServer] = []


class Tokens(Part):
    read: str
    deploy: str
    admin: str


class SupervisorState(Part):
    """The fleet's supervisord. ``started`` (clock ticks since boot) tells it from a later process of the same id."""

    socket: Path
    pid: int | None = None
    started: int | None = None


class FleetState(Part):
    """Everything that a command needs to talk to the fleet, and what ``down`` needs to leave nothing behind."""

    id: str
    directory: Path
    #: Unix sockets: below ``directory``, or in the system's temporary directory where that is too deep.
    run: Path
    phase: Literal["starting", "running"] = "starting"
    #: The kernel's boot id: after a reboot no process of the fleet can be left.
    boot: str = ""
    supervisor: SupervisorState
    edges: list[EdgeState] = []
    hosts: list[HostState] = []
    barrier: list[BarrierState] = []
    #: Where users come in, where something stands before the edges.
    balancer: str | None = None
    s3: str = ""
    bucket: str = "pinrail"
    #: AWS ini file with the fleet's keys.
    s3_credentials: Path
    zookeeper: ZooKeeperState
    prometheus: str | None = None
    prometheus_pid: int | None = None
    s3_pid: int | None = None
    token: Tokens
    #: Ports that are free on every host's address, a pair a service: ``ngapp``, and ``second`` for one more.
    slots: dict[str, tuple[int, int]] = {}
    #: Builds of the sample service that ``up`` published, oldest first.
    builds: list[str] = []

    @property
    def url(self) -> str:
        """Where a person looks first."""
        return f"{self.edges[0].url}/"

    @property
    def in_containers(self) -> bool:
        """Its parts are nobody's processes here: an engine runs them, and only their addresses are known."""
        return self.balancer is not None

    def save(self) -> None:
        """Raises OSError."""
        write_atomic(self.directory / FILE, self.model_dump_json(indent=2) + "\n", 0o600)


def directory(given: Path | None) -> Path:
    """--dir, else $PINRAIL_DIR, else ``.pinrail`` here; absolute."""
    chosen = given or (Path(os.environ["PINRAIL_DIR"]) if os.environ.get("PINRAIL_DIR") else DEFAULT)
    return chosen.expanduser().absolute().resolve()


def load(where: Path) -> FleetState | None:
    """The fleet of that directory; None where there is none. Raises BadConfig for a file that cannot be understood."""
    path = where / FILE
    try:
        data = read_or_none(path)
    except NotADirectoryError:
        return None
    except OSError as e:
        raise BadConfig(f"cannot read {path}: {e.strerror}") from e
    if data is None:
        return None
    try:
        return FleetState.model_validate_json(data)
    except ValidationError as e:
        raise BadConfig(
            f"{path} was written by another version of pinrail; take that one to stop the fleet, or remove {where}"
        ) from e
