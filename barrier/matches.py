"""Which requests services share: two of them must not claim the same ones, and a confined token must not take any.

Edges ask in the order of ``edge.render``: a host before a wildcard before any, then the longer path. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.model import Match, ServiceConfig


def shown(match: Match) -> str:
    return f"{match.host}{match.path}"


def same(one: Match, other: Match) -> bool:
    """Neither is more specific, and they match the same: which service gets a request would be chance."""
    return (one.host.lower(), one.path) == (other.host.lower(), other.path)


def _rank(match: Match) -> tuple[int, int, int]:
    kind = 2 if match.host == "*" else 1 if match.host.startswith("*.") else 0
    return (kind, -len(match.host), -len(match.path))


def _within(host: str, pattern: str) -> bool:
    """Every host that ``host`` stands for is one of ``pattern``'s."""
    return pattern == "*" or host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def takes_from(mine: Match, theirs: Match) -> bool:
    """Requests that ``theirs`` would get go to ``mine``."""
    a, b = mine.host.lower(), theirs.host.lower()
    hosts_meet = _within(a, b) or _within(b, a)
    paths_meet = _below(mine.path, theirs.path) or _below(theirs.path, mine.path)
    return hosts_meet and paths_meet and _rank(mine) <= _rank(theirs)


def clash(config: ServiceConfig, others: Mapping[str, ServiceConfig]) -> tuple[str, Match] | None:
    """The first service that claims the very same as ``config``, and what."""
    return next(((s, m) for m in config.match for s, o in others.items() if any(same(m, t) for t in o.match)), None)


def theft(wanted: Iterable[Match], others: Mapping[str, ServiceConfig]) -> tuple[str, Match] | None:
    """The first service that would lose requests to one of ``wanted``, and to which."""
    return next(
        ((s, m) for m in wanted for s, o in others.items() if any(takes_from(m, t) for t in o.match)),
        None,
    )
