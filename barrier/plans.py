"""Operations on the routing plan, each a plan in and a new plan out. Pure.

They keep what must always hold (the epoch grows by one, the default is served, at most two versions are) and refuse
what would break it. They do not know whether it is the right moment: that is for the predicates and the machine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fleet.model import RETIRED_KEPT, Plan, Preview, Ramp, Staged

#: How many versions of a service a host has slots for.
SERVED_AT_MOST = 2
#: Each is a rule in every edge's configuration.
PREVIEWS_AT_MOST = 20


class PlanError(Exception):
    """The operation would break a promise of the plan; the message says which."""


def _next(plan: Plan, **changes: Any) -> Plan:
    """``plan`` with ``changes`` and the next epoch. Remembers what left ``serving``, forgets what came back."""
    fields = {name: getattr(plan, name) for name in Plan.model_fields} | changes
    serving: tuple[str, ...] = fields["serving"]
    if len(serving) > SERVED_AT_MOST:
        raise PlanError(
            f"at most {SERVED_AT_MOST} versions can be served, not {', '.join(serving)}: withdraw one first"
        )
    gone = tuple(v for v in plan.serving if v not in serving)
    remembered = dict.fromkeys(v for v in (*gone, *plan.retired) if v not in serving)
    fields["retired"] = tuple(remembered)[:RETIRED_KEPT]
    fields["previews"] = tuple(p for p in fields["previews"] if p.version not in gone)
    fields["epoch"] = plan.epoch + 1
    return Plan(**fields)


def withdraw(plan: Plan, versions: Collection[str]) -> Plan:
    """No longer offer ``versions``; what names one of them goes too. The default cannot be withdrawn."""
    if plan.default in versions:
        raise PlanError(f"{plan.default} is the default and cannot be withdrawn")
    staged = plan.staged
    if staged and (staged.default in versions or (staged.ramp and staged.ramp.version in versions)):
        staged = None
    ramp = plan.ramp if plan.ramp and plan.ramp.version not in versions else None
    serving = tuple(v for v in plan.serving if v not in versions)
    return _next(plan, serving=serving, staged=staged, ramp=ramp, mode="pinned")


def offer(plan: Plan, build: str, *, staged: bool = True) -> Plan:
    """Serve ``build`` beside the default, and stage the plan in which it is the default."""
    if build == plan.default:
        raise PlanError(f"{build} is the default already")
    serving = plan.serving if build in plan.serving else (build, *plan.serving)
    change = Staged(generation=plan.generation + 1, default=build) if staged else plan.staged
    return _next(plan, serving=serving, staged=change, mode="pinned")


def stage(plan: Plan, build: str) -> Plan:
    """Stage the plan in which the served ``build`` is the default."""
    if build == plan.default:
        raise PlanError(f"{build} is the default already")
    if build not in plan.serving:
        raise PlanError(f"{build} is not served: offer it first")
    return _next(plan, staged=Staged(generation=plan.generation + 1, default=build))


def ramp(plan: Plan, build: str, percent: int | None) -> Plan:
    """``percent`` of new documents go to ``build``; None ends the ramp. What is staged stays staged."""
    if percent is not None and (plan.default is None or build not in plan.serving or build == plan.default):
        raise PlanError(f"a ramp needs a default and a second served version; {build} is not one")
    return _next(plan, ramp=None if percent is None else Ramp(version=build, percent=percent))


def commit(plan: Plan) -> Plan:
    """The staged change happens; the way back is staged in its place."""
    if plan.staged is None:
        raise PlanError("nothing is staged")
    after = plan.committed()
    back = None
    if plan.default is not None and plan.default != after.default:
        back = Staged(generation=after.generation + 1, default=plan.default)
    return _next(plan, generation=after.generation, default=after.default, ramp=after.ramp, staged=back)


def restore(plan: Plan, serving: tuple[str, ...]) -> Plan:
    """Serve what was served before, the default untouched; the other version is staged as the way back."""
    if plan.default is not None and plan.default not in serving:
        raise PlanError(f"{plan.default} is the default and must stay in {', '.join(serving)}")
    others = [v for v in serving if v != plan.default]
    back = Staged(generation=plan.generation + 1, default=others[0]) if others and plan.default else None
    return _next(plan, serving=serving, staged=back, ramp=None, mode="pinned")


def preview(plan: Plan, added: Preview) -> Plan:
    """Whoever shows the token gets that version, whether it is served or runs on canaries only."""
    if len(plan.previews) >= PREVIEWS_AT_MOST:
        raise PlanError(f"there are {PREVIEWS_AT_MOST} previews already: revoke one first")
    return _next(plan, previews=(*plan.previews, added))


def unpreview(plan: Plan, tokens: Collection[str]) -> Plan:
    """Those tokens open nothing any more."""
    return _next(plan, previews=tuple(p for p in plan.previews if p.token not in tokens))


def mix(plan: Plan, build: str) -> Plan:
    """One pool of the default and ``build``, pins ignored: an ordinary rolling deploy begins."""
    if build == plan.default:
        raise PlanError(f"{build} is the default already")
    serving = (build,) if plan.default is None else (build, plan.default)
    return _next(plan, serving=serving, staged=None, ramp=None, mode="mixed")


def unmix(plan: Plan, build: str) -> Plan:
    """The mixed pool is ``build`` alone, and that is the default: the rolling deploy ends, or has been undone."""
    if build not in plan.serving:
        raise PlanError(f"{build} is not served")
    generation = plan.generation + (build != plan.default)
    return _next(plan, serving=(build,), default=build, generation=generation, staged=None, ramp=None, mode="mixed")
