"""HAProxy beside us: the peer that people would pick, with a map that sends each request to its pin's version.

It chooses by header, parameter and cookie, and stamps nothing: no cache, no attestation, no ramps, no pages that are
kept from going back.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from bench.measure import Row, alternating, compared, load
from bench.servers import PLAN, SERVICE, Server, connects, on, running, seconds_on_a_core, until
from edge.members import Host
from pinrail.local.ports import free_port

_ASK = {"x-deployment-id": "A", "Cookie": "session=0123456789abcdef"}


class _HAProxy:
    def __init__(self, listen: str, pid: int) -> None:
        self.listen = listen
        self._pid = pid

    def cpu_seconds(self) -> float:
        return seconds_on_a_core(self._pid)


def rows(
    directory: Path, ours: Server, sets: Mapping[str, tuple[Host, ...]], *, seconds: int, rounds: int
) -> Iterator[Row]:
    name = "pass, pinned: the peer"
    if shutil.which("haproxy") is None:
        yield Row(name, "", "haproxy not installed")
        return
    with _haproxy(directory, sets) as theirs:
        ask = partial(load, path="/api", headers=_ASK, seconds=seconds)
        pairs = alternating(partial(ask, ours), partial(ask, theirs), rounds)
        yield compared(name, pairs, "HAProxy with an equivalent map", None)


@contextlib.contextmanager
def _haproxy(directory: Path, sets: Mapping[str, tuple[Host, ...]]) -> Iterator[_HAProxy]:
    directory.mkdir()
    port = free_port()
    (directory / "versions.map").write_text("".join(f"{v} {v}\n" for v in sets))
    backends = "".join(
        f"backend {v}\n  balance roundrobin\n  option httpchk GET {SERVICE.health.path}\n"
        + "".join(
            f"  server s{n} {h.address}:{h.port} check inter {SERVICE.health.interval:g}s\n"
            for n, h in enumerate(hosts)
        )
        for v, hosts in sets.items()
    )
    pin = f"map({directory}/versions.map)"
    (directory / "haproxy.cfg").write_text(f"""\
global
  nbthread 1
  maxconn 4096
  pidfile {directory}/pid
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend edge
  bind 127.0.0.1:{port}
  http-request set-var(txn.v) req.cook({SERVICE.pin.cookie}),field(2,.),{pin}
  http-request set-var(txn.v) urlp({SERVICE.pin.query}),{pin} if {{ urlp({SERVICE.pin.query}),{pin} -m found }}
  http-request set-var(txn.v) req.hdr({SERVICE.pin.header}),{pin} if {{ req.hdr({SERVICE.pin.header}),{pin} -m found }}
  http-response set-header x-deployment-id %[var(txn.v)]
  use_backend %[var(txn.v)] if {{ var(txn.v) -m found }}
  default_backend {PLAN.default}
{backends}""")
    with running(on(0, ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")]), directory / "log") as pid:
        until(f"HAProxy answers; see {directory / 'log'}", partial(connects, "127.0.0.1", port))
        yield _HAProxy(f"127.0.0.1:{port}", pid)
