"""One long step at a time beside the loop, which may ask for it to be given up.

So a download or a slow start of one service never keeps the loop from repairing the others, or this service's other
slot. What goes wrong in the step is raised by ``result``, in the loop's thread: trouble is reported, a bug is a crash.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancelled(Exception):
    """The step was asked to give up, and did."""


class Worker:
    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._name = name
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Something was begun whose result nobody has taken yet."""
        return self._thread is not None

    @property
    def done(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    def begin(self, step: Callable[[Callable[[], None]], None]) -> None:
        """``step`` gets a function that raises Cancelled once it should give up; it calls it where that is safe."""
        if self._thread is not None:
            raise AssertionError(f"{self._name} is busy")
        self._cancel.clear()
        self._error = None
        # A daemon: an agent that is told to stop does not wait for a download.
        self._thread = threading.Thread(target=self._run, args=(step,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, step: Callable[[Callable[[], None]], None]) -> None:
        try:
            step(self._check)
        except BaseException as e:  # noqa: BLE001  # carried to the loop's thread, where it is raised
            self._error = e
        self._wake()

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def cancel(self) -> None:
        self._cancel.set()

    def result(self) -> None:
        """Take what is done; raises what the step raised."""
        if not self.done:
            raise AssertionError(f"{self._name} is not done")
        self._thread = None
        if self._error is not None:
            raise self._error

    def join(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)
