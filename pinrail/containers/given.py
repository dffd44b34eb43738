"""What a container is told by its environment. What is missing or makes no sense there is one sentence each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.config import BadConfig
from fleet.names import NodeName
from pinrail.local import ports

PREFIX = "PINRAIL_"
#: Bytes that a part must be able to write before it starts.
_ROOM = 256 * 1024


class Given(BaseModel):
    """Base: the variable of a field is its name in capitals, after PREFIX. An empty one counts as not set."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Edge(Given):
    name: NodeName
    zookeeper: str
    engine: Literal["varnish", "nginx"] = "varnish"
    storage: str = "malloc,64m"
    session_seconds: float = Field(default=6.0, gt=0)
    #: From the health page's turning red to the server's end: what the load balancer needs to take notice.
    leave_seconds: float = Field(default=3.0, ge=0, le=60)


class Host(Given):
    name: NodeName
    zookeeper: str
    #: What edges reach this host's slots on.
    address: str
    role: NodeName = "default"
    s3: str
    bucket: str = "pinrail"
    session_seconds: float = Field(default=6.0, gt=0)
    #: From its leaving the server sets to the pools' end: what edges need to take notice, and requests to end.
    leave_seconds: float = Field(default=3.0, ge=0, le=60)


class Barrier(Given):
    name: NodeName
    zookeeper: str
    s3: str
    bucket: str = "pinrail"
    session_seconds: float = Field(default=6.0, gt=0)


class ZooKeeper(Given):
    name: NodeName
    zookeeper: str


class S3(Given):
    bucket: str = "pinrail"


class Fleet(Given):
    """Who there is: names with commas between them, of hosts with their addresses (``host-1=10.0.0.1``)."""

    zookeeper: str
    s3: str
    bucket: str = "pinrail"
    edges: str
    hosts: str
    barriers: str
    balancer: str = "http://balancer:8080"


T = TypeVar("T", bound=Given)


def read(model: type[T], environment: Mapping[str, str] = os.environ) -> T:
    """Raises BadConfig with one sentence that names all variables which are wrong."""
    names = {field: PREFIX + field.upper() for field in model.model_fields}
    raw = {field: value for field, name in names.items() if (value := environment.get(name, ""))}
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        said = []
        for error in e.errors():
            name = names.get(str(error["loc"][0]) if error["loc"] else "", "the environment")
            missing = error["type"] == "missing"
            said.append(f"{name} is not set" if missing else f"{name}: {error['msg'].removeprefix('Value error, ')}")
        raise BadConfig(f"{'; '.join(said)} (compose/.env.example explains the knobs)") from e


def room(directory: Path) -> Path:
    """``directory``, made where it is missing, and seen to take writes. Raises BadConfig: a full volume for one."""
    probe = directory / ".room"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as f:
            f.write(b"\0" * _ROOM)
        probe.unlink()
    except OSError as e:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        raise BadConfig(f"the volume at {directory} cannot be written: {e.strerror}") from e
    return directory


def free(*wanted: int) -> None:
    """Raises BadConfig where somebody else listens on one of these in this container's network."""
    taken = [str(p) for p in wanted if not ports.is_free("0.0.0.0", p)]  # noqa: S104  it is only tried
    if taken:
        raise BadConfig(f"port {', '.join(taken)} is taken in this container's network: is it shared with another?")
