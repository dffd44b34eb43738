"""Which programs a local fleet runs, in which order, and what each needs before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["zookeeper", "s3", "prometheus", "barrier", "edge", "edge-server", "host", "host-server"]


@dataclass(frozen=True)
class Program:
    name: str
    kind: Kind
    argv: tuple[str, ...]
    #: Seconds that it has to become ready, and from TERM to KILL.
    ready_seconds: float
    stop_seconds: int = 10
    environment: Mapping[str, str] = field(default_factory=dict)


#: What is started together; a group begins when the one before it is ready. Stopped in the opposite order.
STAGES: tuple[tuple[Kind, ...], ...] = (
    ("zookeeper", "s3"),
    ("barrier", "edge-server", "edge", "host-server", "host", "prometheus"),
)

#: Stopping is finer: whoever gives orders first, then agents (they leave ZooKeeper in order), then what they tend.
STOPPING: tuple[tuple[Kind, ...], ...] = (
    ("prometheus", "barrier"),
    ("edge", "host"),
    ("edge-server", "host-server"),
    ("s3", "zookeeper"),
)


def kind_of(name: str) -> str:
    """The kind of a program by its name: ``edge-2-server`` is an ``edge-server``, ``host-1`` a ``host``."""
    return "-".join(word for word in name.split("-") if not word.isdigit())
