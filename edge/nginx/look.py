"""What nginx reports about itself, as values. Pure; ``edge.nginx.control`` fills them in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_SERVICE = re.compile(r"(?P<service>[a-z0-9-]+)=(?P<part>\w+)/(?P<current>\w+)/(?P<staged>\w*):(?P<committed>[01])")


class NotOurs(ValueError):
    """What answers is not an nginx with a configuration of ours."""


@dataclass(frozen=True)
class Routed:
    """One service in the configuration that answers. ``active`` is the key of the routing that new requests use."""

    part: str
    current: str
    staged: str | None
    committed: bool

    @property
    def active(self) -> str:
        return self.staged if self.committed and self.staged else self.current


@dataclass(frozen=True)
class Marker:
    """What the configuration says of itself, through a worker that runs it."""

    name: str
    services: Mapping[str, Routed] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """The master (with when it started), the workers that accept, those that only finish, and what answers."""

    master: int
    started: str
    workers: frozenset[int]
    leaving: frozenset[int]
    marker: Marker


def marker(text: str) -> Marker:
    """Raises NotOurs."""
    words = text.split()
    found = {}
    for word in words[1:]:
        m = _SERVICE.fullmatch(word)
        if m is None:
            raise NotOurs(f"{word[:80]!r} is not a service")
        found[m["service"]] = Routed(m["part"], m["current"], m["staged"] or None, m["committed"] == "1")
    if not words or not re.fullmatch(r"[0-9a-f]{16}", words[0]):
        raise NotOurs(f"{text[:80]!r} is not a marker")
    return Marker(words[0], found)
