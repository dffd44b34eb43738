"""What many small nodes say, read again only where it may have changed: thousands of hosts, few changes at each look.

A node that was read with a watch says the same until that watch fires, or the connection is in doubt; ZooKeeper tells
of a change before it answers with anything newer. A watch that was lost all the same costs delay and no more: after a
while each node is read again, a few at a time. What one look costs here grows with what changed, not with how many
there are.
"""

from __future__ import annotations

import heapq
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fleet.zk import Node, ZooKeeper

T = TypeVar("T")

#: Seconds after which a node is read again although nothing was heard of it: from half of this to all of it.
SECONDS = 30.0


class _Known:
    """One reading. ``void``, called from any thread and at any time, ends it."""

    __slots__ = ("_name", "_stale", "ends", "over", "value")

    def __init__(self, name: str, ends: float, stale: set[str]) -> None:
        self._name = name
        self._stale = stale
        self.ends = ends
        self.over = False
        self.value: Any = None

    def void(self) -> None:
        self.over = True
        self._stale.add(self._name)


class _Below:
    """One parent's children. Who calls holds ``lock``; only ``stale`` is added to without it, by ``_Known.void``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.names: tuple[str, ...] = ()
        self.values: dict[str, Any] = {}
        #: To be asked: new, changed, or known for too long.
        self.stale: set[str] = set()
        self._ends: dict[str, float] = {}
        self._due: list[tuple[float, str]] = []

    def ask(self, names: tuple[str, ...], now: float) -> dict[str, _Known]:
        """A new reading for each of ``names`` that has to be asked."""
        if names is not self.names:
            there = set(names)
            self.stale |= there - self.values.keys()
            self.stale &= there
            for gone in self.values.keys() - there:
                del self.values[gone], self._ends[gone]
            self.names = names
        while self._due and self._due[0][0] <= now:
            ends, name = heapq.heappop(self._due)
            if self._ends.get(name) == ends:
                self.stale.add(name)
        return {n: _Known(n, now + _lasts(n), self.stale) for n in tuple(self.stale)}

    def keep(self, name: str, known: _Known) -> None:
        self.values[name] = known.value
        self._ends[name] = known.ends
        heapq.heappush(self._due, (known.ends, name))
        self.stale.discard(name)
        if known.over:  # after the line above: its end may come between the two, from another thread
            self.stale.add(name)

    def drop(self, name: str) -> None:
        """It is not there. Where it is made again its parent's list changes, and it is new."""
        if name in self.values:
            del self.values[name], self._ends[name]
        self.names = ()


class Recall:
    """Of one session. Safe to use from several threads, which may then read the same node twice."""

    def __init__(self, zk: ZooKeeper, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._zk = zk
        self._monotonic = monotonic
        self._below: dict[str, _Below] = {}
        self._lists: dict[str, _Known] = {}

    def children(self, parent: str) -> tuple[str, ...]:
        """The names below ``parent``, sorted; who comes or leaves wakes the session's owner."""
        known, now = self._lists.get(parent), self._monotonic()
        if known is None or known.over or now >= known.ends:
            known = _Known(parent, now + _lasts(parent), set())
            known.value = self._zk.children(parent, changed=known.void)
            self._lists[parent] = known
        names: tuple[str, ...] = known.value
        return names

    def below(self, parent: str, read: Callable[[Node, str], T]) -> dict[str, T]:
        """What ``read`` made of each of ``parent``'s children; a change wakes the session's owner."""
        names, now = self.children(parent), self._monotonic()
        below = self._below.setdefault(parent, _Below())
        with below.lock:
            asked = below.ask(names, now)
        nodes = self._zk.get_watched({f"{parent}/{n}": known.void for n, known in asked.items()}) if asked else {}
        for name, known in asked.items():
            path = f"{parent}/{name}"
            if (node := nodes.get(path)) is not None:
                known.value = read(node, path)
        with below.lock:
            for name, known in asked.items():
                if f"{parent}/{name}" in nodes:
                    below.keep(name, known)
                else:
                    below.drop(name)
            values = below.values
            return {n: values[n] for n in names if n in values}

    def written(self, parent: str, values: Mapping[str, object], gone: Iterable[str] = ()) -> None:
        """This session has made these children of ``parent`` say that, and ended those; nobody else writes them."""
        if parent in self._lists:
            self._lists[parent].void()
        below = self._below.setdefault(parent, _Below())
        with below.lock:
            for name in gone:
                below.drop(name)
            for name, value in values.items():
                known = _Known(name, self._monotonic() + _lasts(name), below.stale)
                known.value = value
                below.keep(name, known)


def _lasts(name: str) -> float:
    """Not the same for all, so that they are not all read again at the same time."""
    return SECONDS * (1 + zlib.crc32(name.encode()) % 1000 / 1000) / 2
