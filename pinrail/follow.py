"""A rollout as a person watches it: a live line on a terminal, a line for each step elsewhere. Only that display."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from fleet.model import RolloutState
from pipeline.client import Client, OutOfTime, RolloutNow

#: How it ended well, for who asked for a deploy and for who asked for a way back.
DEPLOYED = frozenset({RolloutState.SWITCHED})
UNDONE = frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED})
#: Waiting names shown on one line.
_SHOWN = 4


def line(now: RolloutNow) -> str:
    """``installing: host-2: fetch; host-3: waits for its turn``."""
    named = "; ".join(str(m) for m in now.missing[:_SHOWN]) + ("; ..." if len(now.missing) > _SHOWN else "")
    return f"{now.state.value}: {named}" if named else now.state.value


class Display:
    """Feed it with what is seen of a rollout. Everything goes to stderr; stdout is for results."""

    def __init__(self, *, quiet: bool = False, skip: int = 0) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._status = Status("", console=self._console) if self._console.is_terminal and not quiet else None
        self._shown = skip
        self._stalled: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, now: RolloutNow) -> None:
        for event in now.history[self._shown :]:
            took = f"  ({event.seconds:.1f} s)" if event.seconds is not None else ""
            self._console.print(escape(f"rollout {now.number}  epoch {event.epoch}  {event.text}{took}"))
        self._shown = max(self._shown, len(now.history))
        if now.stalled != self._stalled:
            self._stalled = now.stalled
            for reason in now.stalled:
                self._console.print(escape(f"rollout {now.number}  stalled  {reason}"))
        if self._status:
            self._status.update(escape(line(now)))


def stuck(now: RolloutNow) -> bool:
    """Hosts failed and paused it: nothing happens until a person decides."""
    return now.state is RolloutState.PAUSED and bool(now.failures) and now.request is None


def wait(
    client: Client, now: RolloutNow, seconds: float, good: frozenset[RolloutState], *, quiet: bool, skip: int = 0
) -> tuple[RolloutNow, int, str]:
    """Follow ``now`` to its end; how it was seen last, the exit code, and why it is not 0."""

    def until(seen: RolloutNow) -> bool:
        return seen.over or (stuck(seen) and good == DEPLOYED)

    with Display(quiet=quiet, skip=skip) as display:
        try:
            last = client.wait_rollout(now.service, now.number, seconds=seconds, on=display, until=until)
        except OutOfTime as e:
            return (
                e.last,
                3,
                f"{e}, after {seconds:g} s; it goes on: `pinrail rollout watch {now.service} {now.number}`",
            )
    if last.over and last.state in good:
        return last, 0, ""
    text = last.history[-1].text if last.history else last.state.value
    what = f"rollout {last.number} of {last.build} is {last.state.value}: {text}"
    if stuck(last):
        what += (
            f"; `pinrail rollout resume {last.service}` tries again, `pinrail rollout abort {last.service}` undoes it"
        )
    return last, 1, what
