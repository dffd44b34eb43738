"""When to look again before the loop would of itself. Owns the one timer; knows nothing of what is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

#: Something unfinished is looked at so often at first, then at a quarter of the time that it has lasted already.
_FIRST, _SHARE = 0.25, 4


class Revisit:
    def __init__(self, wake: Callable[[], None], every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``every``: the loop's own interval, beyond which no timer is needed."""
        self._wake = wake
        self._every = every
        self._clock = clock
        self._timer: threading.Timer | None = None
        self._waiting: dict[str, tuple[Hashable, float]] = {}
        #: Seconds until the next look; None: when the loop comes round.
        self.due: float | None = None

    def begin(self) -> None:
        """A cycle begins: whatever it has to wait for, it will say."""
        self.due = None

    def within(self, seconds: float) -> None:
        if seconds < self._every and (self.due is None or seconds < self.due):
            self.due = seconds

    def unfinished(self, what: str, asked: Hashable) -> None:
        """``what`` is not as it was ``asked`` to be. May last for ever (a dead host), so patience grows with time; what
        is asked anew is looked at often again."""
        now = self._clock()
        since = self._waiting.get(what)
        if since is None or since[0] != asked:
            since = self._waiting[what] = (asked, now)
        self.within(max(_FIRST, (now - since[1]) / _SHARE))

    def finished(self, what: str) -> None:
        self._waiting.pop(what, None)

    def schedule(self) -> None:
        """The cycle is over: wake the loop when something is due."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self.due is not None:
            self._timer = threading.Timer(self.due, self._wake)
            self._timer.daemon = True
            self._timer.start()
