"""When to look again before the loop would of itself. Owns the one timer; knows nothing of what is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Revisit:
    def __init__(self, wake: Callable[[], None], every: float) -> None:
        """``every``: the loop's own interval, beyond which no timer is needed."""
        self._wake = wake
        self._every = every
        self._timer: threading.Timer | None = None
        #: Seconds until the next look; None: when the loop comes round.
        self.due: float | None = None

    def begin(self) -> None:
        """A cycle begins: whatever it has to wait for, it will say."""
        self.due = None

    def within(self, seconds: float) -> None:
        if seconds < self._every and (self.due is None or seconds < self.due):
            self.due = seconds

    def schedule(self) -> None:
        """The cycle is over: wake the loop when something is due."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self.due is not None:
            self._timer = threading.Timer(self.due, self._wake)
            self._timer.daemon = True
            self._timer.start()
