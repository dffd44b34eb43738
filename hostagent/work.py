"""The pieces of work that there are: what ``hostagent.plan`` asks for and ``hostagent.steps`` does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Fetch:
    build: str
    digest: str


@dataclass(frozen=True)
class Unpack:
    build: str
    digest: str


@dataclass(frozen=True)
class Prepare:
    """Post-install: make what the release needs beyond its own files; and see that somebody vouches for it."""

    build: str
    digest: str


@dataclass(frozen=True)
class Stop:
    slot: int
    build: str


@dataclass(frozen=True)
class Start:
    slot: int
    build: str


@dataclass(frozen=True)
class Revive:
    """Start those processes of a pool that supervisord has given up."""

    slot: int
    build: str


@dataclass(frozen=True)
class Check:
    slot: int
    build: str


@dataclass(frozen=True)
class Prune:
    builds: tuple[str, ...]
    #: Builds of which only what is left of a download goes.
    downloads: tuple[str, ...] = ()


Work: TypeAlias = Fetch | Unpack | Prepare | Stop | Start | Revive | Check | Prune


def step(work: Work) -> str:
    """Its name in the host's status, in logs and metrics."""
    return type(work).__name__.lower()


def what(work: Work) -> str:
    """On what, for logs."""
    return " ".join(str(v) for v in vars(work).values())
