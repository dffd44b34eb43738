"""What the request table costs: hits and passes through Pinrail's VCL against bare Varnish."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import haproxy
from bench.measure import Row, alternating, compared, load
from bench.servers import origin, serve_bare, serve_pinrail, varnishd

_DOCUMENT = {"Accept": "text/html", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}
#: What is asked: name, path, headers, goal.
_CASES: tuple[tuple[str, str, dict[str, str], float], ...] = (
    ("hit, unpinned", "/data", {}, 0.93),
    ("hit, unpinned document", "/", _DOCUMENT, 0.93),
    ("hit, pinned by header", "/data", {"x-deployment-id": "A"}, 0.93),
    ("hit, pinned asset", "/assets/app.0123abcd.js?dpl=A", {"Sec-Fetch-Dest": "script"}, 0.93),
    ("pass, pinned, with a cookie", "/api", {"x-deployment-id": "A", "Cookie": "session=0123456789abcdef"}, 0.97),
)


def rows(directory: Path, *, seconds: int, rounds: int) -> Iterator[Row]:
    with (
        origin(directory / "origin") as sets,
        varnishd(directory / "pinrail") as ours,
        varnishd(directory / "bare", stock=True) as bare,
    ):
        serve_pinrail(ours, sets)
        serve_bare(bare, sets["A"])
        for name, path, headers, goal in _CASES:
            ask = partial(load, path=path, headers=headers, seconds=seconds)
            pairs = alternating(partial(ask, ours), partial(ask, bare), rounds)
            yield compared(name, pairs, "bare Varnish", goal)
        yield from haproxy.rows(directory / "haproxy", ours, sets, seconds=seconds, rounds=rounds)
