"""A browser with one page open, that roams over all edges which take traffic."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.proof.varnish import Routing


class WentBack(Exception):
    """A document of an older generation than the one before."""


@dataclass
class Client:
    #: Decides whether a ramp has reached it: 0 .. 9999.
    bucket: int
    #: Of the page that is open, and of its cookie.
    version: str | None = None
    generation: int = 0
    #: How often it was moved to another version, by what took its own away.
    forced: Counter[object] = field(default_factory=Counter)

    def document(self, routing: Routing) -> None:
        """A navigation: no pin but the cookie's generation."""
        if routing.default is None or routing.mode == "mixed":
            return
        if self.generation > routing.generation:
            if self.version not in routing.serving:
                raise WentBack(f"{self} at {routing}")
            return  # another edge has switched before this one
        ramp = routing.ramp
        self.version = ramp.version if ramp and self.bucket < ramp.percent * 100 else routing.default
        self.generation = routing.generation

    def fetch(self, routing: Routing) -> str | None:
        """What the open page asks for. The version that it was moved away from, if it was moved."""
        if self.version is None or routing.default is None or routing.mode == "mixed":
            return None
        if self.version in routing.serving:
            return None
        before, self.version = self.version, routing.default
        self.generation = max(self.generation, routing.generation)
        return before
