"""How many hosts of a version are healthy, and whether a service is dead here. Pure: wanted and observed -> counts."""

from __future__ import annotations

from collections.abc import Iterable

from edge import plan, render
from edge.look import Observed
from edge.plan import Want
from edge.render import Rendered
from fleet.model import Plan


def counts(w: Want, versions: Iterable[str], seen: Observed) -> tuple[dict[str, int], dict[str, int]]:
    """Members and healthy ones per version, seen by the staged VCL once it has probed, else by the current one; until
    one of them has, by the one that new requests use, which may be an older plan's and not know all versions."""
    choices = (*w.staged[:1], *w.current[:1], *_pointed(w, seen), *_used(w.former, w, seen))
    by = next((r for r in choices if r.name in seen.health and r.name in seen.ready), None)
    total = dict.fromkeys(versions, 0)
    good = dict(total)
    for version, _ in w.current[0].backends.values():
        total[version] = total.get(version, 0) + 1
    for backend, (version, _) in by.backends.items() if by else ():
        if by and version in total and seen.health[by.name].get(backend) == "healthy":
            good[version] = good.get(version, 0) + 1
    return total, good


def dead(w: Want, routing: Plan, seen: Observed) -> bool:
    """Is there a default, and no healthy host for it, by what new requests really use?"""
    if not routing.default:
        return False
    for r in _pointed(w, seen):
        health = seen.health.get(r.name, {})
        serving = [b for b, (v, _) in r.backends.items() if routing.mode == "mixed" or v == routing.default]
        if not any(health.get(b) == "healthy" for b in serving):
            return True
    return False


def _pointed(w: Want, seen: Observed) -> list[Rendered]:
    """The rendering that new requests use; none while they use one of an older plan."""
    return _used(w.current, w, seen)


def _used(among: Iterable[Rendered], w: Want, seen: Observed) -> list[Rendered]:
    points = plan.targets(seen.look).get(render.label(w.service))
    return [r for r in among if r.name == points]
