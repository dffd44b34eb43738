"""Asking hosts whether they are well, as Varnish's probes do: nginx itself only notices a host that fails a request.

One thread and one epoll for thousands of them, a fresh connection a question. A host is well whose last three answers
have two good ones; a new one from its first good answer on. An answer is good when it is a 200 that bears the stamp of
the version. Only a host's own slowness counts against it: time in which this thread could not run is nobody's.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

_WINDOW, _GOOD = 3, 2
#: Longest head of an answer that is read.
_MOST = 65536
#: Questions under way at once, and begun before the answers to others are looked at.
_FLIGHT, _BATCH = 512, 64
#: Longest wait for an event, and how much longer than it waited a round may take before the rest is not counted.
_TICK, _SLACK = 0.05, 0.02
#: What is wrong with this edge, and not with a host: the question is asked again.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN})


@dataclass(frozen=True)
class Target:
    """One host of one version of one service, and how it is asked."""

    service: str
    version: str
    address: str
    port: int
    path: str
    interval: float
    timeout: float
    #: Is an answer without a stamp, or with another one, a good one? ``any``: yes, both.
    stamp: str = "refuse"


class Health(Enum):
    """``SILENT``: nothing came back, not even a refusal, and no other host has been heard since. That may be this
    edge's own trouble; once another one is heard, it is the host's, and it is ``SICK``."""

    WELL = "well"
    SICK = "sick"
    SILENT = "silent"


class _Watch:
    """One target and the question to it that is under way, if one is."""

    __slots__ = ("fd", "last", "question", "read", "socket", "target", "until")

    def __init__(self, target: Target, last: deque[bool]) -> None:
        host = f"[{target.address}]" if ":" in target.address else target.address
        self.target = target
        self.last = last
        self.question = f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        self.socket: socket.socket | None = None
        self.fd = -1
        self.until = 0.0
        self.read = b""


class Probes:
    """Runs from ``start`` to ``stop``; ``changed`` is called from its thread when a host's health changes."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._asked: tuple[frozenset[Target], frozenset[Target]] | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, select.EPOLLIN)
        self._now = 0.0
        self._watches: dict[Target, _Watch] = {}
        self._flight: dict[int, _Watch] = {}
        #: (when, tie, watch): whose turn comes, and whose answer is late.
        self._turns: list[tuple[float, int, _Watch]] = []
        self._ends: list[tuple[float, int, _Watch]] = []
        self._count = 0
        self._health: dict[Target, Health] = {}
        self._silent: set[Target] = set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        os.eventfd_write(self._bell, 1)
        self._thread.join(10)

    def ask(self, targets: Iterable[Target], trusted: Iterable[Target] = ()) -> None:
        """From now on these, and no others. One bad answer says nothing of those that are ``trusted``, not even their
        first: they served before."""
        with self._lock:
            before = self._asked[1] if self._asked else frozenset()
            self._asked = frozenset(targets), frozenset(trusted) | before
        os.eventfd_write(self._bell, 1)

    def health(self) -> Mapping[Target, Health]:
        """Those that have been asked at least once."""
        return self._health.copy()

    def _run(self) -> None:
        was = time.monotonic()
        while not self._stopping.is_set():
            self._adopt()
            waits = self._begin()
            for fd, events in self._epoll.poll(waits):
                if fd == self._bell:
                    os.eventfd_read(self._bell)
                elif watch := self._flight.get(fd):
                    self._go_on(watch, events)
            # What took longer was not spent listening: it does not count against who was not heard.
            now = time.monotonic()
            self._now += min(now - was, waits + _SLACK)
            was = now
            self._give_up()
        for watch in list(self._flight.values()):
            self._close(watch)
        self._epoll.close()
        os.close(self._bell)

    # -- whom to ask --

    def _adopt(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is None:
            return
        wanted, trusted = asked
        for target in self._watches.keys() - wanted:
            self._close(self._watches.pop(target))
            self._health.pop(target, None)
            self._silent.discard(target)
        for target in wanted - self._watches.keys():
            before = [True] * (_GOOD if target in trusted else _GOOD - 1)
            self._watches[target] = watch = _Watch(target, deque(before, maxlen=_WINDOW))
            self._push(self._turns, self._now, watch)

    def _push(self, to: list[tuple[float, int, _Watch]], when: float, watch: _Watch) -> None:
        self._count += 1
        heapq.heappush(to, (when, self._count, watch))

    def _begin(self) -> float:
        """Ask those whose turn it is, some at a time; how long there is nothing to do then but to listen."""
        for _ in range(_BATCH):
            if not self._turns or self._turns[0][0] > self._now or len(self._flight) >= _FLIGHT:
                break
            watch = heapq.heappop(self._turns)[2]
            if self._watches.get(watch.target) is watch:
                self._connect(watch)
        if not self._turns or len(self._flight) >= _FLIGHT:
            return _TICK
        return min(max(self._turns[0][0] - self._now, 0.0), _TICK)

    # -- one question --

    def _connect(self, watch: _Watch) -> None:
        try:
            family = socket.AF_INET6 if ":" in watch.target.address else socket.AF_INET
            watch.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            watch.fd, watch.read = watch.socket.fileno(), b""
            error = watch.socket.connect_ex((watch.target.address, watch.target.port))
        except OSError as e:
            error = e.errno or errno.EIO
        if error in (0, errno.EINPROGRESS):
            self._flight[watch.fd] = watch
            self._epoll.register(watch.fd, select.EPOLLOUT)
            watch.until = self._now + watch.target.timeout
            self._push(self._ends, watch.until, watch)
        else:
            self._failed(watch, error)

    def _go_on(self, watch: _Watch, events: int) -> None:
        assert watch.socket is not None  # noqa: S101  it is under way
        try:
            if events & select.EPOLLOUT:
                watch.socket.send(watch.question)
                self._epoll.modify(watch.fd, select.EPOLLIN)
                return
            got = watch.socket.recv(_MOST)
        except BlockingIOError:
            return
        except OSError as e:
            self._failed(watch, e.errno or errno.EIO)
            return
        watch.read += got
        head, end, _ = watch.read.partition(b"\r\n\r\n")
        if end:
            self._heard(watch, Health.WELL if _good(head, watch.target) else Health.SICK)
        elif not got or len(watch.read) > _MOST:
            self._heard(watch, Health.SICK)

    def _failed(self, watch: _Watch, error: int) -> None:
        if error in _OURS:
            self._close(watch)
            self._push(self._turns, self._now + watch.target.interval, watch)
        else:
            answered = error in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
            self._heard(watch, Health.SICK if answered else Health.SILENT)

    def _give_up(self) -> None:
        while self._ends and self._ends[0][0] <= self._now:
            until, _, watch = heapq.heappop(self._ends)
            if watch.until == until and self._flight.get(watch.fd) is watch:
                self._heard(watch, Health.SILENT)

    def _heard(self, watch: _Watch, answer: Health) -> None:
        self._close(watch)
        watch.last.append(answer is Health.WELL)
        well = sum(watch.last) >= _GOOD
        was = self._health.get(watch.target)
        silent = answer is Health.SILENT and was is not Health.SICK
        health = Health.WELL if well else Health.SILENT if silent else Health.SICK
        news = {watch.target: health} if health is not was else {}
        if answer is not Health.SILENT:
            news |= dict.fromkeys(self._silent - {watch.target}, Health.SICK)
        if news:
            self._health |= news
            self._silent = {t for t in self._silent | news.keys() if self._health[t] is Health.SILENT}
            self._changed()
        # Not all edges and hosts in step.
        self._push(self._turns, self._now + watch.target.interval * random.uniform(0.9, 1.1), watch)  # noqa: S311

    def _close(self, watch: _Watch) -> None:
        self._flight.pop(watch.fd, None)
        if watch.socket is not None:
            watch.socket.close()
        watch.socket, watch.fd = None, -1


def _good(head: bytes, target: Target) -> bool:
    status, *lines = head.decode("latin-1").split("\r\n")
    return status.split(" ")[1:2] == ["200"] and _stamped(lines, target)


def _stamped(lines: list[str], target: Target) -> bool:
    stamps = [
        value.strip()
        for name, _, value in (line.partition(":") for line in lines)
        if name.lower() == "x-served-version"
    ]
    if target.stamp == "any" or (target.stamp == "allow" and not stamps):
        return True
    return stamps == [target.version]
