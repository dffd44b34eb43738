"""What the API takes and gives, beside the payloads of ``fleet.model``. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.model import Ack, Enabled, HostStatus, Plan, Rollout, ServiceConfig, Turn
from fleet.names import Build

Reason = Annotated[str, Field(max_length=1000)]


class Asked(BaseModel):
    """Base of what a caller sends: an unknown key is an error, and so is a number that is no number (``strict``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewRollout(Asked):
    build: Build
    #: Percentages of new documents, growing; the switch follows the last one below 100.
    ramp: tuple[Annotated[int, Field(ge=1, le=100, strict=True)], ...] = ()
    #: Seconds that each step of the ramp is held unless somebody says resume; "hand": until somebody does; "verdict":
    #: until a verdict of pass comes.
    hold: Annotated[float, Field(ge=0, le=7 * 86400, strict=True)] | Literal["hand", "verdict"] = 60.0
    reason: Reason = ""
    #: Only if the plan still is at this epoch.
    expected_epoch: int | None = Field(default=None, ge=0, strict=True)

    @model_validator(mode="after")
    def _growing(self) -> Self:
        if list(self.ramp) != sorted(set(self.ramp)):
            raise ValueError(f"the percentages of a ramp must grow, like 1, 10, 100: got {list(self.ramp)}")
        return self


class Why(Asked):
    reason: Reason = ""


class NewVerdict(Asked):
    """On the present step of a ramp: pass takes the next one, fail aborts, undecided is only written down."""

    verdict: Literal["pass", "fail", "undecided"]
    reason: Reason = ""
    #: Only if the ramp still is at this percentage.
    percent: int | None = Field(default=None, ge=1, le=99, strict=True)


class Eviction(Asked):
    reason: str = Field(min_length=1, max_length=1000)


class Version(Asked):
    version: Build
    reason: Reason = ""
    #: Only if the plan still is at this epoch.
    expected_epoch: int | None = Field(default=None, ge=0, strict=True)


class NewPreview(Asked):
    build: Build
    #: How long the token opens anything: up to thirty days.
    seconds: float = Field(default=3600, ge=1, le=30 * 86400, strict=True)
    reason: Reason = ""


class PreviewView(BaseModel):
    id: str
    version: Build
    #: What a request has to carry.
    token: str
    #: By the clock of the replica that made it.
    expires: float
    by: str
    #: Of the plan that brought it; only where it is new.
    epoch: int | None = None


class Waiting(BaseModel):
    """Who is not there yet: an edge, a host, or the rollout itself."""

    who: str
    why: str


class EdgeMissing(BaseModel):
    edge: str
    why: str


class BarrierView(BaseModel):
    id: str
    #: Of the plan as it is now.
    epoch: int
    met: bool
    missing: list[EdgeMissing]


class ServiceView(BaseModel):
    service: str
    config: ServiceConfig
    plan: Plan
    enabled: Enabled
    #: The active rollout.
    rollout: Rollout | None
    #: The one that begins when that is over.
    queued: Rollout | None
    #: Registered members per version.
    members: dict[str, int]


class ServiceLine(BaseModel):
    service: str
    default: str | None
    serving: list[str]
    epoch: int
    rollout: int | None
    #: Why nothing of it can be read, and nothing moves; the other services go on.
    trouble: str | None = None


class RolloutView(Rollout):
    """A rollout, and who it waits for right now."""

    missing: list[Waiting] = Field(default_factory=list)


class EdgeService(BaseModel):
    ack: Ack | None
    #: What it has not done of the current plan; None where it is up to date.
    behind: str | None


class EdgeView(BaseModel):
    name: str
    #: Barriers wait for it.
    rostered: bool
    alive: bool
    #: It is being taken away: its health page is red, and it does not join the roster.
    leaving: bool
    engine: str
    url: str
    metrics: str
    services: dict[str, EdgeService]


class HostService(BaseModel):
    status: HostStatus
    #: The serial that hosts of its role must reach.
    wanted: int
    turn: Turn | None


class HostView(BaseModel):
    name: str
    services: dict[str, HostService]


class Evicted(BaseModel):
    edge: str
    #: It was on the roster until now.
    rostered: bool
    #: Its agent lives: it joins the roster again as soon as it can.
    alive: bool


class Leaving(BaseModel):
    edge: str
    leaving: bool
    #: Barriers (still) wait for it.
    rostered: bool
    alive: bool


class Problem(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
