"""Whether this edge's health page may be green: what the engine says of the plan, what barriers expect of this edge.

Holds what one look cannot tell; the engine's own rules are ``edge.plan.red`` and ``edge.nginx.plan.red``.
"""

from __future__ import annotations

from typing import Protocol

NOT_ROSTERED = "not on the roster yet"
LEAVING = "leaving"
ALONE = "ZooKeeper is away, and what it has to say of this start is not known"


class Red(Protocol):
    """Why the page must be red, by the engine's own rules; None where it need not be. ``dead``: services whose default
    no host serves."""

    def __call__(self, *, dead: frozenset[str]) -> str | None: ...


class Page:
    def __init__(self) -> None:
        #: Barriers wait for this edge; an operator takes it away.
        self.rostered = self.leaving = False
        #: The life of the engine whose page had no reason to be red but for its hosts, when ZooKeeper was last heard.
        self._fit: str | None = None

    def why_red(self, red: Red, dead: frozenset[str], life: str, *, alone: bool) -> str | None:
        """``life``: the engine's, from its start to its end. ``alone``: ZooKeeper is not heard, so what was not fit to
        be green when it last was, or has been started since, waits."""
        if not alone:
            self._fit = life if red(dead=frozenset()) is None else None
        if self.leaving:
            return LEAVING
        if not self.rostered:
            return red(dead=frozenset()) or NOT_ROSTERED
        return red(dead=dead) or (ALONE if alone and self._fit != life else None)
