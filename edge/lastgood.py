"""The last good set on disk: what an agent goes on with after a restart of its own.

Written after the server has confirmed it, each file complete or absent. Holds no decision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from edge.members import Host
from fleet.files import read_or_none, write_atomic
from fleet.model import Plan, ServiceConfig, Wire


class Good(Wire):
    """One service as it was last applied. ``epochs``: rendering -> last epoch that it was rendered for."""

    plan: Plan
    config: ServiceConfig
    sets: dict[str, tuple[Host, ...]] = Field(default_factory=dict)
    #: The operator's own VCL in it.
    own: str = ""
    epochs: dict[str, int] = Field(default_factory=dict)


class LastGood(Wire):
    services: dict[str, Good] = Field(default_factory=dict)


class Store:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "lastgood.json"
        self._written: bytes | None = None

    def read(self) -> LastGood:
        """Nothing where nothing was written, or by a version of ourselves that wrote it differently."""
        raw = read_or_none(self._path)
        if raw is None:
            return LastGood()
        try:
            return LastGood.model_validate_json(raw)
        except ValidationError:
            return LastGood()

    def write(self, good: LastGood, boot: Callable[[], None]) -> bool:
        """Make it what a restart begins with; False where that is on disk already. ``boot`` writes what the server
        boots from. Raises OSError."""
        raw = good.encode()
        if raw == self._written:
            return False
        boot()
        write_atomic(self._path, raw)
        self._written = raw
        return True
