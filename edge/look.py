"""What Varnish reports about itself, as values. Pure; ``edge.varnish`` fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vcl:
    """One line of ``vcl.list``. A label points to ``target``; anything else has None."""

    name: str
    status: str  # active, available, discarded
    temperature: str  # init, cold, warm, busy, cooling
    busy: int = 0
    target: str | None = None

    @property
    def warm(self) -> bool:
        return self.temperature in ("warm", "busy")


@dataclass(frozen=True)
class Look:
    """What Varnish itself reports: processes and what is loaded. ``child`` is None while no child runs."""

    manager: int
    child: int | None
    vcls: tuple[Vcl, ...] = ()


@dataclass(frozen=True)
class Observed:
    """A look, and what follows of it and of earlier ones in the same life of Varnish. ``incarnation``: that life;
    ``ready``: VCLs whose own probes have run; ``health``: VCL -> backend -> healthy or sick; ``refused``: VCL -> what
    the compiler said; ``overdue``: discarded VCLs that are busy for longer than anyone waits, and ``cut`` those of
    them that have been seen to."""

    look: Look
    incarnation: str = ""
    ready: frozenset[str] = frozenset()
    health: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    overdue: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
