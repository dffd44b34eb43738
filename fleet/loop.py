"""The one loop that every agent runs: observe, plan, apply, confirm, report.

An agent is anything with ``cycle() -> str``; the string is the sentence of what it found and did. A watch only sets
the ``Wake``; it carries no data, so a lost event costs delay (at most ``every`` seconds), never correctness.

Whose fault decides what happens to an error. ``Trouble`` is the world's (ZooKeeper away, a daemon not answering): it
is logged once per wording, and the loop goes on with backoff. Everything else is ours: it leaves the loop, the
process dies, and whoever supervises it starts it again from nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from fleet import log

_log = log.get()


#: The rest after a cycle that took so long is as many times that.
_RESTS = 3.0
#: A process's exit code when one of its threads has ended with an error.
CRASHED = 70


class Trouble(Exception):
    """The outside world's fault: report, wait, try again. The message is a sentence a person can act on."""


class Said(str):
    """A sentence put together from one for each service, which are logged one by one, each with its service's name."""

    parts: Mapping[str, str]

    def __new__(cls, parts: Mapping[str, str], otherwise: str = "", separator: str = "; ") -> Self:
        """``parts``: service -> sentence, "" for what is about none; ``otherwise``: where there are none."""
        said = super().__new__(cls, separator.join(parts.values()) or otherwise)
        said.parts = parts if parts else {"": otherwise}
        return said


class Cycling(Protocol):
    def cycle(self) -> str: ...


class Wake:
    """Something happened, or it is time to stop. Safe to call from any thread and from signal handlers."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._stopped = threading.Event()
        self.stopping = False

    def __call__(self, *_: object) -> None:
        self._event.set()

    def stop(self, *_: object) -> None:
        self.stopping = True
        self._stopped.set()
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, at most ``seconds``; True when woken. Clears itself."""
        woken = self._event.wait(seconds)
        self._event.clear()
        return woken

    def rest(self, seconds: float) -> None:
        """Wait, woken or not, unless it is to stop; what wakes it meanwhile is not forgotten."""
        self._stopped.wait(seconds)


def stop_on_signals(wake: Wake) -> None:
    """TERM and INT end the loop after the current cycle. Main thread only."""
    signal.signal(signal.SIGTERM, wake.stop)
    signal.signal(signal.SIGINT, wake.stop)


def crash_with_any_thread() -> None:
    """A thread that ends with an error ends the process, with its traceback, for whoever supervises it to start anew.

    What is left would look alive and be none: without kazoo's thread, say, an agent is away for ever.
    """

    def ended(thread: threading.ExceptHookArgs) -> None:
        if thread.exc_type is not SystemExit:
            threading.__excepthook__(thread)
            os._exit(CRASHED)

    threading.excepthook = ended


def run(agent: Cycling, wake: Wake, *, every: float = 2.0, backoff: float = 0.2, rest: float = 0.0) -> None:
    """Cycle until ``wake.stop()``: at once when woken, else every ``every`` seconds; after trouble with backoff.

    ``rest``: seconds, at most, in which news is gathered after a cycle: three times as many as the cycle took. Where
    there is much to look at, what comes one by one is then looked at together.

    Logs a cycle's sentence, or of one with parts each part, when it differs from the last one.
    """
    said: Mapping[str, str] = {}
    delay = backoff
    while not wake.stopping:
        began = time.monotonic()
        try:
            sentence = agent.cycle()
            wait, delay = every, backoff
            said = _say(_log.info, sentence, said)
        except Trouble as trouble:
            first = trouble.args[0] if trouble.args else ""
            said = _say(_log.warning, first if isinstance(first, Said) else str(trouble), said)
            wait, delay = delay, min(delay * 2, every)
        if not wake.stopping:
            if rest:
                wake.rest(min(rest, _RESTS * (time.monotonic() - began)))
            wake.wait(wait)


def _say(tell: Callable[..., None], sentence: str, before: Mapping[str, str]) -> Mapping[str, str]:
    """What has now been said: log what of ``sentence`` was not ``before``."""
    parts = sentence.parts if isinstance(sentence, Said) else {"": sentence}
    for service, part in parts.items():
        if before.get(service) != part:
            tell(part, **({"service": service} if service else {}))
    return parts
