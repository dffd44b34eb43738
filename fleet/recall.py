"""What many small nodes say, read again only where it may have changed: thousands of hosts, few changes at each look.

A node that was read with a watch says the same until that watch fires, or the connection is in doubt; ZooKeeper tells
of a change before it answers with anything newer. A watch that was lost all the same costs delay and no more: after a
while each node is read again, a few at a time.
"""

from __future__ import annotations

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

    __slots__ = ("ends", "over", "value")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.over = False
        self.value: Any = None

    def void(self) -> None:
        self.over = True


class Recall:
    """Of one session. Safe to use from several threads, which may then read the same node twice."""

    def __init__(self, zk: ZooKeeper, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._zk = zk
        self._monotonic = monotonic
        self._known: dict[str, Mapping[str, _Known]] = {}
        self._lists: dict[str, _Known] = {}

    def children(self, parent: str) -> tuple[str, ...]:
        """The names below ``parent``, sorted; who comes or leaves wakes the session's owner."""
        known, now = self._lists.get(parent), self._monotonic()
        if known is None or known.over or now >= known.ends:
            known = _Known(now + _lasts(parent))
            known.value = self._zk.children(parent, changed=known.void)
            self._lists[parent] = known
        names: tuple[str, ...] = known.value
        return names

    def below(self, parent: str, read: Callable[[Node, str], T]) -> dict[str, T]:
        """What ``read`` made of each of ``parent``'s children; a change wakes the session's owner."""
        names, now = self.children(parent), self._monotonic()
        before = self._known.get(parent, {})
        found = {n: k for n in names if (k := before.get(n)) is not None and not k.over and now < k.ends}
        asked = {n: _Known(now + _lasts(n)) for n in names if n not in found}
        nodes = self._zk.get_watched({f"{parent}/{n}": known.void for n, known in asked.items()})
        for name, known in asked.items():
            path = f"{parent}/{name}"
            if (node := nodes.get(path)) is not None:
                known.value = read(node, path)
                found[name] = known
        self._known[parent] = found
        return {n: found[n].value for n in names if n in found}

    def written(self, parent: str, values: Mapping[str, object], gone: Iterable[str] = ()) -> None:
        """This session has made these children of ``parent`` say that, and ended those; nobody else writes them."""
        if parent in self._lists:
            self._lists[parent].void()
        known = {n: k for n, k in self._known.get(parent, {}).items() if n not in set(gone)}
        for name, value in values.items():
            known[name] = _Known(self._monotonic() + _lasts(name))
            known[name].value = value
        self._known[parent] = known


def _lasts(name: str) -> float:
    """Not the same for all, so that they are not all read again at the same time."""
    return SECONDS * (1 + zlib.crc32(name.encode()) % 1000 / 1000) / 2
