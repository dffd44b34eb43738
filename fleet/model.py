"""The payloads of the znodes and of the HTTP API: what the parts say to each other. Pure.

Payloads read from ZooKeeper ignore fields they do not know, so that an old and a new version of ourselves can run
together. What a person wrote (a service's config) is validated with ``extra="forbid"`` where it enters.
Sequences of builds are newest first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from fleet.names import Build, Form, HeaderName, NodeName, Service

#: How many retired versions a plan remembers, so that edges can tell "retired" from "never heard of".
RETIRED_KEPT = 8


class Wire(BaseModel):
    """Base of everything that travels: immutable; unknown fields ignored when read."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def encode(self) -> bytes:
        """Compact JSON, as it is written to a znode."""
        return self.model_dump_json(by_alias=True).encode()


W = TypeVar("W", bound=Wire)


def decode(model: type[W], data: bytes | None) -> W | None:
    """The model in ``data``; None for no data. Raises pydantic.ValidationError on a malformed payload."""
    return model.model_validate_json(data) if data else None


# --- a service's configuration -----------------------------------------------------------------------------------


_Host = Annotated[
    str, Form(r"^(\*|(\*\.)?[A-Za-z0-9.-]+)$", 'must be a host name, "*.example.org" for its subdomains, or "*"')
]
_Prefix = Annotated[str, Form(r"^/[A-Za-z0-9._~/-]*$", "must be the beginning of a path, such as /shop")]
_Assets = Annotated[str, Form(r"^/[A-Za-z0-9._~/-]+$", "must be the beginning of a path, such as /assets/")]


class Match(Wire):
    """Requests that belong to the service: host (exact, or ``*.example.org``, or ``*``) and path prefix."""

    host: _Host = "*"
    path: _Prefix = "/"


class Pin(Wire):
    """Where a request may name the version it wants. Defaults: what the ecosystem already sends."""

    header: HeaderName = "x-deployment-id"
    query: HeaderName = "dpl"
    cookie: HeaderName = "__dpl"
    #: A retired pin that is not a document: serve the default and say so, or answer 409.
    retired: Literal["forced", "conflict"] = "forced"


#: What a program can be given.
Word = Annotated[str, Form(r"^[^\x00]*$", "cannot have a zero byte")]
VariableName = Annotated[
    str, Form(r"^[A-Za-z_][A-Za-z0-9_]*$", "is no variable's name: letters, digits and '_', no digit first")
]
#: Of a URL, on the host that is asked.
UrlPath = Annotated[str, Form(r"^/[\x21-\x7e]*$", "must be a path on the process that is asked, such as /warm?x=1")]
_HealthPath = Annotated[
    str, Form(r"^/[A-Za-z0-9._~/?=&-]*$", "must be a path on the process that is asked, such as /healthz")
]


class Pool(Wire):
    """The processes of one version on one host."""

    #: argv, run in the release; ``{python}`` is its interpreter; told by SOCKET or PORT and PINRAIL_VERSION.
    command: tuple[Word, ...] = Field(default=("{python}", "serve.py"), min_length=1)
    environment: dict[VariableName, Word] = Field(default_factory=dict)
    #: argv, run once in a fresh release before it starts; empty: a virtualenv where the release has requirements.txt.
    install: tuple[Word, ...] = ()
    #: Seconds that it may take.
    install_seconds: float = Field(default=300, gt=0, le=3600)
    processes: int = Field(default=2, ge=1, le=256)
    listen: Literal["socket", "port"] = "socket"
    #: Seconds from TERM to KILL.
    stop_seconds: float = Field(default=10, gt=0, le=3600)
    #: Seconds a fresh process has to give its first good answer.
    start_seconds: float = Field(default=30, gt=0, le=3600)


class Health(Wire):
    """What counts as healthy, for hosts (each process), for edges (each host) and for barriers."""

    path: _HealthPath = "/healthz"
    #: Good answers in a row that a process must give before its pool is registered.
    good: int = Field(default=2, ge=1, le=100)
    #: URLs asked of each process before it is checked.
    warm: tuple[UrlPath, ...] = ()
    #: Seconds between an edge's probes of one backend.
    interval: float = Field(default=1.0, ge=0.1, le=60)
    #: Share (percent) of a version's registered members that each edge must see healthy before the default may move.
    floor: int = Field(default=75, ge=1, le=100)
    #: Share (percent) of a pool's processes that must be live for the host to stay registered.
    pool_floor: int = Field(default=50, ge=1, le=100)

    def enough(self, live: int, processes: int) -> bool:
        """Whether a pool of which so many live stays registered."""
        return live > 0 and live * 100 >= processes * self.pool_floor


class Waves(Wire):
    """How many hosts may be in their turn at once: ``concurrency`` when given, else ``percent`` of the fleet (>= 1)."""

    percent: int = Field(default=15, ge=1, le=100)
    concurrency: int | None = Field(default=None, ge=1)
    #: More failed hosts than this pause the rollout.
    max_failures: int = Field(default=0, ge=0)


class ServiceConfig(Wire):
    """One service, as its owner configures it (``docs/config/service.toml`` explains every key)."""

    match: tuple[Match, ...] = (Match(),)
    pin: Pin = Pin()
    #: Path prefixes of hashed assets: one cache entry for all versions, looked for in the other served version on 404.
    immutable: tuple[_Assets, ...] = ("/assets/",)
    #: dual: two versions side by side, pinned. inplace: one slot, restarted a wave at a time, pins ignored.
    strategy: Literal["dual", "inplace"] = "dual"
    #: A host's public port per slot.
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (8000, 8001)
    pool: Pool = Pool()
    health: Health = Health()
    waves: Waves = Waves()
    #: A response without the host's stamp: refuse it like a wrong one, or let it through.
    unstamped: Literal["refuse", "allow"] = "refuse"
    #: Seconds without progress after which a rollout is reported as stalled.
    stall_seconds: float = Field(default=60, gt=0)
    #: ... and what is done then, after ``give_up_seconds`` without progress.
    when_stalled: Literal["wait", "evict", "abort"] = "wait"
    give_up_seconds: float = Field(default=300, gt=0)
    #: A rollout that is asked for while another one is active.
    when_busy: Literal["refuse", "queue"] = "refuse"
    #: Seconds that an edge waits for a slow backend's first byte, and a host for its process.
    response_seconds: float = Field(default=60, gt=0, le=3600)
    #: Seconds that websockets and other endless answers may keep an edge from being drained; 0: for ever.
    drain_seconds: float = Field(default=120, ge=0, le=86400)
    #: Largest request body, in bytes.
    body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    #: Releases kept on a host beside those that run.
    keep: int = Field(default=5, ge=1)
    #: Builds whose signature has a counter below this are not started any more; hosts never forget the highest.
    revoked_below: int = Field(default=0, ge=0)

    @field_validator("ports")
    @classmethod
    def _enough(cls, ports: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        strategy = info.data.get("strategy", "inplace")  # absent where it is itself at fault
        wanted = 2 if strategy == "dual" else 1
        if len(ports) < wanted or len(set(ports)) != len(ports):
            raise ValueError(f"strategy {strategy!r} needs {wanted} different ports, got {list(ports)}")
        return ports

    @property
    def slots(self) -> int:
        return 2 if self.strategy == "dual" else 1


# --- the routing plan --------------------------------------------------------------------------------------------


class Ramp(Wire):
    """``percent`` of new documents, by the client's bucket, go to ``version`` instead of the default."""

    version: Build
    percent: int = Field(ge=0, le=100)


class Preview(Wire):
    """Requests that carry ``token`` get ``version``. The service removes it when it expires; edges hold no clock."""

    version: Build
    token: str = Field(min_length=16, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")
    #: For people, by the clock of the replica that made it.
    expires: float
    #: How long it lives: what the leader counts, from when it first sees it.
    seconds: float = Field(default=3600, gt=0)
    by: str = ""


class Staged(Wire):
    """The change of default that may come next at one instant."""

    generation: int
    default: Build
    ramp: Ramp | None = None


class Plan(Wire):
    """The single truth for edges. ``epoch`` +1 on every change, ``generation`` +1 whenever the default changes."""

    epoch: int = Field(default=0, ge=0)
    generation: int = Field(default=0, ge=0)
    default: Build | None = None
    serving: tuple[Build, ...] = ()
    ramp: Ramp | None = None
    previews: tuple[Preview, ...] = ()
    staged: Staged | None = None
    retired: tuple[Build, ...] = ()
    #: mixed: one pool of all served versions, pins ignored: an ordinary rolling deploy.
    mode: Literal["pinned", "mixed"] = "pinned"
    updated_by: str = ""
    rollout: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, version in (
            ("default", self.default),
            ("staged default", self.staged.default if self.staged else None),
            ("ramp version", self.ramp.version if self.ramp else None),
        ):
            if version is not None and version not in self.serving:
                raise ValueError(f"the {what} {version!r} is not in serving {list(self.serving)}")
        if len(set(self.serving)) != len(self.serving):
            raise ValueError(f"serving names a version twice: {list(self.serving)}")
        if self.staged and self.staged.generation <= self.generation:
            raise ValueError("the staged generation must be newer than the plan's")
        return self

    def routing(self) -> Plan:
        """What of the plan decides a request: all but its epoch, what is staged, and who wrote it."""
        return self.model_copy(update={"epoch": 0, "staged": None, "updated_by": "", "rollout": None})

    def committed(self) -> Plan:
        """The routing after the staged change: what an edge holds warm, and what the plan says once it is committed.

        Raises ValueError where nothing is staged. ``epoch`` and ``staged`` are left alone; edges ignore both when
        they render, so that the committed plan renders to the very same text as the staged one did.
        """
        if self.staged is None:
            raise ValueError("nothing is staged")
        return self.model_copy(
            update={
                "generation": self.staged.generation,
                "default": self.staged.default,
                "ramp": self.staged.ramp,
            }
        )


class Ack(Wire):
    """What one edge really does with one service's plan, confirmed from the server itself."""

    #: Agent, manager and child that this ack speaks for; a change of any voids what was said before.
    incarnation: str
    engine: Literal["varnish", "nginx"] = "varnish"
    #: Epoch that new requests use; 0 for none.
    applied: int = 0
    #: Epoch whose staged change is loaded and warm (equal to ``applied`` where nothing is staged).
    staged: int = 0
    #: No request is left on anything older than this epoch's configuration.
    drained: int = 0
    #: Healthy and registered members per version, as this edge sees them.
    healthy: dict[Build, int] = Field(default_factory=dict)
    members: dict[Build, int] = Field(default_factory=dict)
    error: str | None = None


class EdgeInfo(Wire):
    """``/edges/E`` (ephemeral: alive) and ``/roster/E`` (persistent: barriers wait for it)."""

    name: NodeName
    engine: Literal["varnish", "nginx"] = "varnish"
    url: str = ""
    metrics: str = ""


# --- hosts -------------------------------------------------------------------------------------------------------


class EnabledBuild(Wire):
    """A build that hosts must run; ``digest`` is ``sha256:<hex>`` of the archive, as the manifest had it."""

    build: Build
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Enabled(Wire):
    """The builds that hosts of a role must run. ``serial`` +1 on every change. Builds newest first."""

    serial: int = Field(default=0, ge=0)
    builds: tuple[EnabledBuild, ...] = ()
    #: What an abort would put back: hosts keep its release, whatever else they throw away.
    kept: tuple[Build, ...] = ()
    rollout: int | None = None


class Turn(Wire):
    """The host may act on that serial (or an older one) now."""

    serial: int


class SlotState(StrEnum):
    EMPTY = "empty"
    INSTALLING = "installing"
    STARTING = "starting"
    SERVING = "serving"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    FAILED = "failed"


class Slot(Wire):
    index: int
    port: int
    build: Build | None = None
    state: SlotState = SlotState.EMPTY
    processes: int = 0
    live: int = 0


class HostStatus(Wire):
    """``/services/S/hosts/H``: what a host really runs of one service."""

    name: NodeName
    role: str = "default"
    address: str = ""
    slots: tuple[Slot, ...] = ()
    #: Highest serial of ``enabled`` that this host has fully reached: every enabled build serving, nothing else.
    serial: int = 0
    #: What it is doing now (``fetch``, ``unpack``, ``start`` ...), None when idle.
    step: str | None = None
    #: Why it cannot go on with ``failed_serial``; None when it can.
    error: str | None = None
    failed_serial: int = 0


class Endpoint(Wire):
    host: str
    port: int = Field(ge=1, le=65535)


class Member(Wire):
    """A Finagle-style server set member: one host's pool of one version."""

    serviceEndpoint: Endpoint
    additionalEndpoints: dict[str, Endpoint] = Field(default_factory=dict)
    status: Literal["ALIVE", "STOPPING"] = "ALIVE"
    shard: int = 0
    #: Live processes: the backend's weight.
    weight: int = Field(default=1, ge=1)
    name: NodeName = "unknown"


# --- rollouts ----------------------------------------------------------------------------------------------------


class RolloutState(StrEnum):
    QUEUED = "queued"
    WITHDRAWING = "withdrawing"
    INSTALLING = "installing"
    OFFERING = "offering"
    RAMPING = "ramping"
    SWITCHED = "switched"
    PAUSED = "paused"
    ABORTING = "aborting"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


class RolloutEvent(Wire):
    """One line of a rollout's history. ``at`` is the writer's wall clock, for people only: nothing compares it."""

    at: float
    state: RolloutState
    text: str
    epoch: int
    #: Seconds in the state before, by the writer's monotonic clock; None where the writer was another.
    seconds: float | None = None


class Request(Wire):
    """What an operator asked of a running rollout; the leader takes it up and clears it."""

    verb: Literal["pause", "resume", "abort", "rollback"]
    by: str
    reason: str = ""


class Rollout(Wire):
    """``/services/S/rollouts/N``: one rollout, everything a successor needs to go on with it."""

    number: int = Field(ge=1)
    service: Service
    build: Build
    digest: str
    by: str
    reason: str = ""
    ramp: tuple[int, ...] = ()
    state: RolloutState = RolloutState.QUEUED
    #: While paused or aborting: the state that it came from.
    resume_to: RolloutState | None = None
    #: The default when it began; what a rollback goes back to.
    previous: Build | None = None
    #: Versions that it withdrew.
    withdrawn: tuple[Build, ...] = ()
    #: As configured when it was accepted; a later change of the service does not bend a rollout that is under way.
    strategy: Literal["dual", "inplace"] = "dual"
    #: Seconds that each step of a ramp is held unless an operator says ``resume``; "hand": until one does; "verdict":
    #: until whoever compares the versions says pass (or an operator ``resume``).
    hold: Annotated[float, Field(ge=0)] | Literal["hand", "verdict"] = 60.0
    #: What was served and enabled when it began: what an abort puts back.
    served: tuple[Build, ...] = ()
    before: tuple[EnabledBuild, ...] = ()
    #: Nothing more will happen, and the lock is free.
    done: bool = False
    #: Reasons why it does not move, on top of its state.
    stalled: tuple[str, ...] = ()
    #: Hosts that failed in their turn, with their own words.
    failures: dict[str, str] = Field(default_factory=dict)
    request: Request | None = None
    idempotency_key: str | None = None
    history: tuple[RolloutEvent, ...] = ()


# --- builds ------------------------------------------------------------------------------------------------------


class Manifest(Wire):
    """``builds/S/BUILD/manifest.json`` beside the archive."""

    service: Service
    build: Build
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    #: Bytes of the archive, and of what it holds.
    size: int = Field(ge=0)
    unpacked: int = Field(ge=0)
    files: int = Field(ge=0)
    #: ``sha256:<hex>`` of the index of its chunks; None: it has none, and is fetched whole.
    chunks: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    commit: str | None = None
    branch: str | None = None
    created: str = ""
    builder: str = ""


class Signature(Wire):
    """That the holder of ``key`` vouches for a build; what exactly is signed is in ``fleet.signing``."""

    #: Beginning of the SHA-256 of the public key.
    key: str = Field(pattern=r"^[0-9a-f]{16}$")
    #: Grows with every signed build of a service.
    counter: int = Field(ge=1)
    #: Unix seconds after which no host installs the build any more; None: never.
    expires: int | None = None
    #: Base64.
    signature: str


class Signatures(Wire):
    """``builds/S/BUILD/manifest.sig`` beside the manifest: one for each key, so that keys can follow one another."""

    signatures: tuple[Signature, ...] = ()
