"""What a person sees while the demo runs: a line each thing, and on a terminal live numbers. Goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from pinrail.demo.check import Way
from pinrail.demo.observe import Log

TITLES = {Way.ROLLING: "rolling deploy", Way.PINNED: "Pinrail"}


class Progress:
    """A context. Nothing moves where stderr is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._log: Log | None = None
        self._began = time.monotonic()
        self._spinner = Spinner("dots")

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._now, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def way(self, way: Way) -> Callable[[str, Log | None], None]:
        def say(what: str, log: Log | None) -> None:
            self._log = log
            took = time.monotonic() - self._began
            self._console.print(f"[dim]{took:5.1f} s[/dim]  {TITLES[way]:<14}  {escape(what)}")

        return say

    def _now(self) -> Spinner | Text:
        if self._log is None or not self._log.records:
            return Text()
        records = self._log.records
        recent = self._log.recent(records[-1].ended - 2)
        foreign = sum(r.pin is not None and r.answered not in (None, r.pin) for r in recent)
        self._spinner.update(
            text=f"{len(records)} requests, {len(recent) / 2:.0f}/s, of the last 2 s {foreign} from another version"
        )
        return self._spinner
