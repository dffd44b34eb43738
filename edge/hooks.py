"""The operator's hooks, run after each commit. Owns their queue and their thread; nothing in here can hold up a commit.

A hook that fails, hangs or has to be left out is said in the log, counted, and kept as the service's fault until one of
its commits runs well again. It changes nothing else.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge.config import Hook
from fleet import log, proc

_log = log.get()

#: Commits whose hooks wait for their turn; beyond that they are left out.
_WAITING = 100
#: Characters of a hook's output that go into the log.
_SAID = 2000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Commit:
    """One move of a service's label. ``previous``: the default before it; "" where there was none."""

    service: str
    epoch: int
    default: str
    previous: str


class Hooks(threading.Thread):
    """Runs every hook for every commit, one after the other, until ``stop``."""

    def __init__(self, edge: str, hooks: Sequence[Hook], ended: Callable[[str, bool], None]) -> None:
        """``ended`` is told of each hook that ended: its program, and whether it went well."""
        super().__init__(name="hooks", daemon=True)
        self._edge = edge
        self._hooks = tuple(hooks)
        self._ended = ended
        self._queue: queue.Queue[Commit | None] = queue.Queue(_WAITING)
        self._stopping = threading.Event()
        self._faults: dict[str, str] = {}

    def committed(self, commit: Commit) -> None:
        """Run the hooks for ``commit`` in their turn. Returns at once."""
        if not self._hooks:
            return
        try:
            self._queue.put_nowait(commit)
        except queue.Full:
            for hook in self._hooks:
                self._failed(commit, hook, f"left out: {_WAITING} commits wait for their hooks already")

    def fault(self, service: str) -> str | None:
        """What went wrong with the hooks of the service's last commit."""
        return self._faults.get(service)

    def stop(self) -> None:
        """The hook that runs is killed; those that wait are dropped."""
        self._stopping.set()
        if self.is_alive():
            self.join(10)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                commit = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if commit is not None:
                self._all(commit)

    def _all(self, commit: Commit) -> None:
        good = [self._one(commit, hook) for hook in self._hooks if not self._stopping.is_set()]
        if all(good):
            self._faults.pop(commit.service, None)

    def _one(self, commit: Commit, hook: Hook) -> bool:
        try:
            result = proc.run(hook.argv, deadline=hook.seconds, env=_environment(self._edge, commit), check=self._go_on)
        except (OSError, proc.ProgramTimeout) as e:
            self._failed(commit, hook, str(e))
            return False
        except _Stopped:
            return False
        said = result.output.strip()[-_SAID:]
        if result.code:
            self._failed(commit, hook, f"exit {result.code}{f': {said}' if said else ''}")
            return False
        self._ended(hook.argv[0], True)
        _log.info("a hook ran", hook=hook.argv[0], service=commit.service, epoch=commit.epoch, said=said)
        return True

    def _failed(self, commit: Commit, hook: Hook, why: str) -> None:
        self._faults[commit.service] = f"on_commit {hook.argv[0]} after epoch {commit.epoch}: {why}"
        self._ended(hook.argv[0], False)
        _log.error("a hook failed", hook=hook.argv[0], service=commit.service, epoch=commit.epoch, why=why)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


class _Stopped(Exception):
    pass


def _environment(edge: str, commit: Commit) -> Mapping[str, str]:
    """All that a hook gets: nothing of the agent's own environment but the language."""
    return {
        "PATH": _PATH,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PINRAIL_EDGE": edge,
        "PINRAIL_SERVICE": commit.service,
        "PINRAIL_EPOCH": str(commit.epoch),
        "PINRAIL_DEFAULT": commit.default,
        "PINRAIL_PREVIOUS": commit.previous,
    }
