"""Numbers: requests per second by wrk, rounds that alternate, and what is said of them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bench.servers import on
from fleet import proc

#: Connections that wrk keeps open: enough that Varnish never waits for it.
CONNECTIONS = 32


class Measured(Protocol):
    """What takes requests at ``listen``."""

    listen: str

    def cpu_seconds(self) -> float: ...


class Spoiled(Exception):
    """A round that measured something else, such as errors."""


@dataclass(frozen=True)
class Samples:
    """Median and range of what was measured."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, form: str) -> str:
        return f"{self.median:{form}} ({min(self.values):{form}}–{max(self.values):{form}})"


@dataclass(frozen=True)
class Row:
    """One line of the table. ``rate`` and ``cpu``: Pinrail's over the other's, round by round; ``goal``: at least."""

    name: str
    ours: str
    other: str
    rate: Samples | None = None
    cpu: Samples | None = None
    goal: float | None = None


@dataclass(frozen=True)
class Round:
    """``rate``: requests per second. ``cpu``: requests per second of the server's own time on a core, which says the
    same as ``rate`` on a machine that does nothing else, and still says it on one that does."""

    rate: float
    cpu: float


def load(
    server: Measured, path: str, headers: Mapping[str, str], seconds: int, connections: int = CONNECTIONS
) -> Round:
    """What wrk gets from ``server`` with one thread. Raises Spoiled where any answer was an error."""
    before = server.cpu_seconds()
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    for name, value in headers.items():
        argv += ["-H", f"{name}: {value}"]
    result = proc.run(on(-1, [*argv, f"http://{server.listen}{path}"]), deadline=seconds + 30)
    cpu = server.cpu_seconds() - before
    found = re.search(r"^\s*(\d+) requests in .*^Requests/sec:\s+([\d.]+)", result.output, re.MULTILINE | re.DOTALL)
    if result.code or not found or "Non-2xx" in result.output or "Socket errors" in result.output:
        raise Spoiled(f"wrk at {path}: {result.output.strip()}")
    return Round(float(found.group(2)), int(found.group(1)) / max(cpu, 0.01))


def alternating(ours: Callable[[], Round], other: Callable[[], Round], rounds: int) -> list[tuple[Round, Round]]:
    """One after the other, so often; one first round, unmeasured, warms both."""
    ours()
    other()
    return [(ours(), other()) for _ in range(rounds)]


def compared(name: str, pairs: list[tuple[Round, Round]], other: str, goal: float | None) -> Row:
    rates = [Samples(tuple(r.rate for r in side)) for side in zip(*pairs, strict=True)]
    return Row(
        name,
        f"{rates[0].text(',.0f')} requests/s",
        f"{rates[1].text(',.0f')} requests/s, {other}",
        rate=Samples(tuple(a.rate / b.rate for a, b in pairs)),
        cpu=Samples(tuple(a.cpu / b.cpu for a, b in pairs)),
        goal=goal,
    )
