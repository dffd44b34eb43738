"""Counting requests and flip-flops from Varnish's log. Owns the varnishlog child; parses and counts, decides nothing.

Each client request leaves one ``VCL_Log`` record (``pr_log`` in the template). They are read in chunks and counted a
chunk at a time. Only what happens while this runs is counted, and nothing twice: varnishlog starts at the log's tail.
It says nothing when it has found the log, so the traces of the agent's own commands (``CLI``) are read too: with the
first of them it is there. Whatever may have been missed is said in a metric, and not guessed.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from edge.metrics import Metrics
from fleet import log

_log = log.get()

_RECORD = re.compile(rb"VCL_Log +[cb] (pinrail(?:-stamp)? [^\n]*)\n")
_OUTCOMES = frozenset({"exact", "default", "forced", "ramp", "preview", "fault", "back", "none", "error"})
_CAUSES = frozenset({"-", "retired", "unknown", "gone", "generation", "newer", "stamp", "mixed"})
FLIPS = frozenset({"forced", "fault", "back"})
Known = Mapping[str, frozenset[str]]


def records(chunk: bytes) -> Counter[bytes]:
    """The records in whole lines of varnishlog's output, each distinct one with its count."""
    return Counter(_RECORD.findall(chunk))


def count(found: Counter[bytes], known: Known, metrics: Metrics) -> None:
    """Add ``found`` to the metrics. Names that no plan has are ``unknown``, so that labels stay few."""
    for raw, n in found.items():
        words = raw.decode(errors="replace").split(" ")
        if words[0] == "pinrail-stamp" and len(words) == 4 and words[1] in known:
            _, service, wanted, got = words
            metrics.stamps(service, _version(wanted, known[service]), _version(got, known[service]), n)
        elif words[0] == "pinrail" and len(words) == 7 and words[1] in known:
            _, service, version, outcome, origin, cause, document = words
            if outcome not in _OUTCOMES or cause not in _CAUSES:
                continue
            version = _version(version, known[service])
            metrics.requests(service, version, outcome, document == "doc", n)
            if outcome in FLIPS:
                metrics.flips(service, _version(origin, known[service]), version, cause, n)


def _version(name: str, known: frozenset[str]) -> str:
    return "none" if name == "-" else name if name in known else "unknown"


class Flips(threading.Thread):
    """Keeps a varnishlog running and counts what it prints, until ``stop``."""

    def __init__(
        self,
        workdir: Path,
        known: Callable[[], Known],
        metrics: Metrics,
        counting: threading.Event,
        wake: Callable[[], None],
        program: str = "varnishlog",
    ) -> None:
        """``counting`` is set while each request is counted; ``wake`` is called when that begins."""
        super().__init__(name="flips", daemon=True)
        self._argv = [program, "-n", str(workdir), "-t", "off", "-g", "raw", "-i", "VCL_Log,CLI"]
        self._known = known
        self._metrics = metrics
        self._wake = wake
        self._stopping = threading.Event()
        self._counting = counting

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._once()
            self._stopping.wait(0.2)

    def _once(self) -> None:
        with subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            try:
                self._read(child)
            finally:
                self._lost(self._metrics.gap)
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                try:
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    child.kill()

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None and child.stderr is not None  # noqa: S101
        out, err = child.stdout.fileno(), child.stderr.fileno()
        rest = b""
        while True:
            readable, _, _ = select.select([out, err], [], [], 0.1)
            if self._stopping.is_set() and not readable:
                return
            if err in readable:
                said = os.read(err, 1 << 16)
                if not said:
                    return
                if b"overrun" in said:
                    self._lost(self._metrics.overrun)
                elif b"abandoned" in said:
                    self._lost(self._metrics.gap)
                if text := said.decode(errors="replace").strip(". \n"):  # dots: it waits for varnishd
                    _log.warning("varnishlog says", text=text)
            if out in readable:
                chunk = os.read(out, 1 << 20)
                if not chunk:
                    return
                self._found()
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                count(records(whole + newline), self._known(), self._metrics)

    def _found(self) -> None:
        if not self._counting.is_set():
            self._counting.set()
            self._metrics.counting(True)
            self._wake()

    def _lost(self, say: Callable[[], None]) -> None:
        """The log has run ahead, or it has ended, or varnishlog has: until it is found again nothing is counted."""
        if self._counting.is_set():
            self._counting.clear()
            self._metrics.counting(False)
            if not self._stopping.is_set():
                say()
                _log.warning("counting was interrupted: requests are missing in the metrics")
