"""Counting requests and flip-flops from nginx's log of them. Owns the reading and the rotation of that one file.

Each client request leaves one line (``log_format`` in the template), which each worker writes in chunks of whole lines.
Only what happens while this runs is counted, and nothing twice: reading begins at the end of the file.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edge.flips import Known, count
from edge.metrics import Metrics
from fleet import log
from fleet.loop import Trouble

_log = log.get()

_CHUNK = 1 << 20
#: Bytes after which the file is begun anew, and looks after that for what late workers still write to the old one.
_LARGE, _LATE = 64 << 20, 20
_LOOK = 0.1


def records(lines: Counter[bytes], *, delivered: bool) -> Counter[bytes]:
    """Log lines as records to be counted. ``delivered``: was an answer with another stamp than the chosen version's
    delivered all the same, and not refused?"""
    found: Counter[bytes] = Counter()
    for line, n in lines.items():
        words = line.split(b" ", 7)
        if len(words) != 8:
            continue
        service, version, outcome, origin, cause, document, fetch, stamp = words
        stamp = stamp.removesuffix(b"-").strip()
        if fetch and stamp not in (b"", b"-", fetch):
            found[b" ".join((b"pinrail-stamp", service, fetch, stamp.replace(b" ", b"_")))] += n
            if delivered:
                version, outcome, origin, cause = stamp.replace(b" ", b"_"), b"fault", version, b"stamp"
        document = b"doc" if document == b"d-" else b"-"
        found[b" ".join((b"pinrail", service, version, outcome, origin, cause, document))] += n
    return found


class Requests(threading.Thread):
    """Reads the file and counts, until ``stop``."""

    def __init__(
        self,
        file: Path,
        known: Callable[[], Known],
        metrics: Metrics,
        reopen: Callable[[], None],
        *,
        delivered: bool,
        large: int = _LARGE,
    ) -> None:
        """``reopen`` makes nginx begin the file anew once it has another name."""
        super().__init__(name="requests", daemon=True)
        self._file = file
        self._known = known
        self._metrics = metrics
        self._reopen = reopen
        self._delivered = delivered
        self._large = large
        self._stopping = threading.Event()
        self._rest = b""
        self.counting = threading.Event()

    def stop(self) -> None:
        self._metrics.counting(False)
        self._stopping.set()
        self.join(10)

    def run(self) -> None:
        first = True
        while not self._stopping.is_set():
            try:
                with self._file.open("rb") as f:
                    if first:
                        f.seek(0, os.SEEK_END)
                    first = False
                    self.counting.set()
                    self._metrics.counting(True)
                    self._follow(f)
            except FileNotFoundError:
                first = False  # whatever it will hold is new
                self._stopping.wait(_LOOK)

    def _follow(self, f: BinaryIO) -> None:
        """Until the end of this file's life, or ours. A partial line at the end waits for its rest."""
        self._rest = b""
        late: int | None = None
        while True:
            stopping = self._stopping.is_set()
            while chunk := f.read(_CHUNK):
                self._take(chunk)
                late = _LATE if late is not None else None
            if stopping:
                return
            if late is None and f.tell() > self._large and self._rotate():
                late = _LATE
            elif late is not None:
                late -= 1
                if late <= 0:
                    self._old.unlink(missing_ok=True)
                    return
            self._stopping.wait(_LOOK)

    def _take(self, chunk: bytes) -> None:
        whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        if newline:
            count(records(Counter(whole.split(b"\n")), delivered=self._delivered), self._known(), self._metrics)

    @property
    def _old(self) -> Path:
        return self._file.with_name(f"{self._file.name}.old")

    def _rotate(self) -> bool:
        try:
            self._file.rename(self._old)
            self._reopen()
        except (OSError, Trouble) as e:
            _log.warning("the log of requests could not be begun anew", error=str(e))
            return self._old.exists()
        return True
