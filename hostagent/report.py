"""What a host says of one service: its slots' states, and the one error that a person should see. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.model import HostStatus, Slot, SlotState
from hostagent.plan import Decision
from hostagent.view import View
from hostagent.work import Check, Revive, Start, Stop, Work


def states(decision: Decision, errors: Mapping[Work, str]) -> tuple[Slot, ...]:
    """The slots as decided, those marked whose pool does not come up; what another build did there is no mark."""
    broken = {(w.slot, w.build) for w in errors if isinstance(w, Start | Check)}
    return tuple(
        s.model_copy(update={"state": SlotState.FAILED})
        if (s.index, s.build) in broken and s.state in (SlotState.STARTING, SlotState.INSTALLING)
        else s
        for s in decision.slots
    )


def error(view: View, decision: Decision, errors: Mapping[Work, str]) -> str | None:
    """The first failure that stands between this host and what is enabled."""
    if decision.problem:
        return decision.problem
    wanted = {e.build for e in view.enabled.builds} if view.enabled else set()
    for work in decision.work:
        if work in errors and (isinstance(work, Stop) or getattr(work, "build", None) in wanted):
            return errors[work]
    if decision.complete:
        return None
    # While a pool is revived, why its check failed still stands; and that it had to be, until it serves again.
    standing = (w for w in errors if isinstance(w, Check | Revive) and w.build in wanted)
    return next((errors[w] for w in standing), None)


def sentence(service: str, status: HostStatus) -> str:
    """The same for the log."""
    shown = ", ".join(f"{s.index} {s.state.value} {s.build or ''}".rstrip() for s in status.slots)
    doing = f"; {status.step}" if status.step else ""
    return f"{service}: {shown or 'no slots'}{doing}" + (f"; {status.error}" if status.error else "")
