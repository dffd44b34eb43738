"""How often somebody may ask: a bucket for each caller that fills up again with time. Bounded in memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Callers remembered; of more, those that asked longest ago begin anew.
CALLERS = 10_000


class Rate:
    """``burst`` at once, then ``per_second``. Safe to use from several threads."""

    def __init__(
        self,
        per_second: float,
        burst: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        callers: int = CALLERS,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._callers = callers
        self._lock = threading.Lock()
        #: What is left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Seconds until the caller may ask again; 0 where it may now."""
        with self._lock:
            return max(0.0, (1 - self._now(caller)) / self._per_second)

    def take(self, caller: str) -> float:
        """The same, and it has asked where it might."""
        with self._lock:
            left = self._now(caller)
            if left < 1:
                return (1 - left) / self._per_second
            self._left[caller] = (left - 1, self._monotonic())
            self._left.move_to_end(caller)
            while len(self._left) > self._callers:
                self._left.popitem(last=False)
            return 0.0

    def _now(self, caller: str) -> float:
        left, at = self._left.get(caller, (self._burst, 0.0))
        return min(self._burst, left + (self._monotonic() - at) * self._per_second)


@dataclass(frozen=True)
class Rates:
    """Of one replica: by token, by address for what needs none, and wrong tokens by address."""

    tokens: Rate
    addresses: Rate
    guesses: Rate

    @classmethod
    def of(cls, per_second: float) -> Rates:
        return cls(Rate(per_second, 4 * per_second), Rate(per_second, 4 * per_second), Rate(1.0, 50))
