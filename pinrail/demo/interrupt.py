"""INT, TERM and HUP while an event loop runs: the main task is cancelled, its blocks clean up, then ``Interrupted``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from pinrail.local.signals import Interrupted

T = TypeVar("T")
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def until_signal(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` that a signal ends in order. A signal handler that raised would only hit whichever task runs."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        return asyncio.run(_guarded(main))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _guarded(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    caught: list[int] = []

    def stop(number: int) -> None:
        if not caught:
            caught.append(number)
            task.cancel()

    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if caught:
            raise Interrupted(caught[0]) from None
        raise
    finally:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)
