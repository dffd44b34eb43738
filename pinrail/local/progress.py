"""What a person sees while the fleet comes up: a line each; on a terminal, a spinner for what is still awaited.

Goes to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Progress:
    """Use it as a context; ``done`` prints a line, ``waiting`` replaces the spinner's words."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def waiting(self, names: Collection[str]) -> None:
        if self._status is not None:
            self._status.update(f"waiting for {', '.join(names)}")

    def done(self, name: str, seconds: float, what: str = "ready") -> None:
        self._console.print(f"  {name:<16} [green]{escape(what)}[/green] in {seconds:.1f} s")

    def say(self, sentence: str) -> None:
        self._console.print(escape(sentence))


class Clock:
    """Seconds since it was made, or since ``restart``."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began
