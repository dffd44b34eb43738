"""A rollout as a person watches it: live bars and names on a terminal, a line for each step elsewhere. Only that."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fleet.model import RolloutState
from pipeline.client import Client, OutOfTime, RolloutNow

#: How it ended well, for who asked for a deploy and for who asked for a way back.
DEPLOYED = frozenset({RolloutState.SWITCHED})
UNDONE = frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED})
#: Waiting names shown below each other.
_SHOWN = 12
S = RolloutState
#: What a rollout goes through, and what that is called here.
_STEPS = ((S.WITHDRAWING, "withdraw"), (S.INSTALLING, "install"), (S.OFFERING, "offer"), (S.RAMPING, "ramp"))


class Picture:
    """The rollout as it is now: a bar for its steps, one for whom this step waits for, and their names and reasons."""

    def __init__(self) -> None:
        self._step: object = None
        self._most = 0

    def __call__(self, now: RolloutNow) -> RenderableType:
        if (now.state, now.build) != self._step:
            self._step, self._most = (now.state, now.build), 0
        self._most = max(self._most, len(now.missing))
        names = [name for state, name in _STEPS if state is not S.RAMPING or now.ramp] + ["switch"]
        done = _steps_done(now, len(names))
        bars = Table.grid(padding=(0, 1))
        steps = Text(" > ").join(
            Text(n, style="green" if i < done else "bold" if i == done else "dim") for i, n in enumerate(names)
        )
        bars.add_row(Text(f"{now.build}"), ProgressBar(len(names), done, width=24), steps)
        if self._most:
            there = self._most - len(now.missing)
            note = Text(f"{now.state.value}: {there} of {self._most} there")
            bars.add_row(Text(""), ProgressBar(self._most, there, width=24), note)
        waiting = Table.grid(padding=(0, 1))
        for m in now.missing[:_SHOWN]:
            waiting.add_row(Text("  waits for", style="dim"), Text(m.who, style="bold"), Text(m.why))
        if len(now.missing) > _SHOWN:
            waiting.add_row(Text(""), Text(f"and {len(now.missing) - _SHOWN} more"), Text(""))
        return Group(bars, waiting)


def _steps_done(now: RolloutNow, steps: int) -> int:
    """How many of the steps are over; one that is being undone has none left, a pause is where it began."""
    state = now.resume_to if now.state is S.PAUSED and now.resume_to else now.state
    order = [s for s, _ in _STEPS if s is not S.RAMPING or now.ramp]
    if state in order:
        return order.index(state)
    if state is S.SWITCHED:
        return steps if now.done else steps - 1
    return 0


class Display:
    """Feed it with what is seen of a rollout. Everything goes to stderr; stdout is for results."""

    def __init__(self, *, quiet: bool = False, skip: int = 0) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        live = self._console.is_terminal and not quiet
        self._live = Live(console=self._console, transient=True, refresh_per_second=8) if live else None
        self._picture = Picture()
        self._shown = skip
        self._stalled: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, now: RolloutNow) -> None:
        for event in now.history[self._shown :]:
            took = f"  ({event.seconds:.1f} s)" if event.seconds is not None else ""
            self._console.print(escape(f"rollout {now.number}  epoch {event.epoch}  {event.text}{took}"))
        self._shown = max(self._shown, len(now.history))
        if now.stalled != self._stalled:
            self._stalled = now.stalled
            for reason in now.stalled:
                self._console.print(escape(f"rollout {now.number}  stalled  {reason}"))
        if self._live:
            self._live.update(self._picture(now))


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
    state = last.state.value
    text = last.history[-1].text.removeprefix(state).lstrip(",: ") if last.history else ""
    what = f"rollout {last.number} of {last.service} to {last.build} is {state}" + (f": {text}" if text else "")
    if stuck(last):
        what += (
            f"; `pinrail rollout resume {last.service}` tries again, `pinrail rollout abort {last.service}` undoes it"
        )
    return last, 1, what
