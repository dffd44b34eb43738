"""What is wanted of one service and what the machine really has of it: what ``hostagent.plan`` decides on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.model import Enabled, EnabledBuild, ServiceConfig, Wire


@dataclass(frozen=True)
class SlotView:
    """One slot as the machine has it. ``build`` None: supervisord runs nothing there."""

    index: int
    port: int
    build: str | None = None
    processes: int = 0
    live: int = 0
    #: nginx runs.
    nginx: bool = False
    #: The pool gave its good answers since this nginx started.
    checked: bool = False
    #: supervisord has given up, or was told to stop, one of its programs.
    dead: bool = False


class Reached(Wire):
    """The last ``enabled`` that was reached in full, kept on disk. The builds too: a serial alone may come again."""

    serial: int = 0
    builds: tuple[EnabledBuild, ...] = ()

    def matches(self, enabled: Enabled) -> bool:
        return self.serial == enabled.serial and set(self.builds) == set(enabled.builds)


@dataclass(frozen=True)
class View:
    config: ServiceConfig
    enabled: Enabled | None
    #: Serial of the turn that the host holds.
    turn: int | None
    reached: Reached
    #: Every slot of the config, and every further one that holds something; ascending.
    slots: tuple[SlotView, ...]
    #: Complete releases on disk, by digest; newest first.
    releases: dict[str, str] = field(default_factory=dict)
    #: Of those, the ones whose post-install is still to be done, and wanted ones that nobody is known to vouch for.
    unprepared: frozenset[str] = frozenset()
    #: Complete archives on disk.
    archives: frozenset[str] = frozenset()
    #: Builds of which there is anything left of a download, or of what is no release any more, or not yet.
    downloads: frozenset[str] = frozenset()
    #: Ports on which another service runs here, and which one that is.
    taken: Mapping[int, str] = field(default_factory=dict)
