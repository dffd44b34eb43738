"""INT, TERM and HUP as one exception, once; what follows while we clean up is ignored, as cleaning up is bounded."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Not an Exception: nothing that handles errors may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Gives ``ignore``, to be called before cleaning up. Main thread only; puts back what was there."""

    def ignore() -> None:
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def interrupted(number: int, _: FrameType | None) -> None:
        ignore()
        raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in _NUMBERS}
    for number in _NUMBERS:
        if before[number] is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, interrupted)
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
