"""The last good set on disk: what varnishd boots from, and what an agent needs to go on after a restart of its own.

Written after Varnish has confirmed it, each file complete or absent. Holds no decision.
"""

from __future__ import annotations

from pydantic import Field, ValidationError

from edge import server
from edge.config import EdgeConfig
from edge.members import Host
from edge.render import Rendered, Route
from fleet.files import read_or_none, write_atomic
from fleet.model import Plan, ServiceConfig, Wire


class Good(Wire):
    """One service as it was last applied. ``epochs``: VCL name -> last epoch that it was rendered for."""

    plan: Plan
    config: ServiceConfig
    sets: dict[str, tuple[Host, ...]] = Field(default_factory=dict)
    epochs: dict[str, int] = Field(default_factory=dict)


class LastGood(Wire):
    services: dict[str, Good] = Field(default_factory=dict)


class Store:
    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self._path = config.directory / "lastgood.json"
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

    def write(self, good: LastGood, services: dict[str, Rendered], routes: tuple[Route, ...]) -> bool:
        """Make it what a restart begins with; False where that is on disk already. Raises OSError."""
        raw = good.encode()
        if raw == self._written:
            return False
        server.write_boot(self._config, services, routes)
        write_atomic(self._path, raw)
        self._written = raw
        return True
