"""``python -m bench``: run the measurements, print the table, write ``docs/benchmarks.md``."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import agent, compose, counting, edges, loading, nginx_engine, own_time, scale, throughput, transfer
from bench.measure import CONNECTIONS, Row, Spoiled
from bench.servers import STORAGE, Missing, cores, need, version
from edge.catalog import SETTLE

_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of load in each round")
    parser.add_argument("--rounds", type=int, default=5, help="measured, ours and the other's in turn")
    parser.add_argument(
        "--only", choices=_NAMES, action="append", help="these alone; docs/benchmarks.md stays as it is"
    )
    parser.add_argument("--no-page", action="store_true", help=f"leave docs/{_PAGE.name} as it is")
    options = parser.parse_args()
    err = Console(stderr=True)
    wanted = options.only or _NAMES
    try:
        if set(wanted) - _ALONE:
            need("wrk", "taskset", "varnishd", "nginx", "gcc")
    except Missing as e:
        err.print(str(e))
        return 2
    found: list[Row] = []
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="pinrail-bench-", dir=_memory(), ignore_cleanup_errors=True) as name:
        benches = _benches(Path(name), options.seconds, options.rounds)
        try:
            for row in itertools.chain.from_iterable(benches[w] for w in wanted):
                err.print(f"{row.name}: {row.cpu.text('.2f') if row.cpu else row.ours}", highlight=False)
                found.append(row)
        except Spoiled as e:
            err.print(f"a round was spoiled, nothing is written: {e}", highlight=False)
            return 1
    Console(width=None if sys.stdout.isatty() else 180).print(_table(found))
    if not options.no_page and not options.only:
        command = " ".join(["python -m bench", *sys.argv[1:]]) if len(sys.argv) > 1 else "make bench"
        programs = ", ".join(
            f"{name} {version(program)}" for name, program in _PROGRAMS.items() if shutil.which(program)
        )
        _PAGE.write_text(_page(found, command, options.seconds, options.rounds, busy, programs))
    return 0


#: In the order of the page.
_NAMES = (
    *("throughput", "loading", "counting", "edges", "nginx_engine", "transfer"),
    *("agent", "own_time", "scale", "compose"),
)
#: Those that need no programs but those that ``script/setup`` installs.
_ALONE = frozenset({"transfer", "agent", "own_time", "scale"})


def _benches(directory: Path, seconds: int, rounds: int) -> dict[str, Iterator[Row]]:
    """Each begins when its first row is asked for."""
    return {
        "throughput": throughput.rows(directory, seconds=seconds, rounds=rounds),
        "loading": loading.rows(directory, rounds=rounds),
        "counting": counting.rows(directory / "counting", seconds=seconds, rounds=rounds),
        "edges": edges.rows(directory / "edges", rounds=rounds),
        "nginx_engine": nginx_engine.rows(directory, seconds=seconds, rounds=rounds),
        "transfer": transfer.rows(directory / "transfer", rounds=rounds),
        "agent": agent.rows(directory / "agent", rounds=rounds),
        "own_time": own_time.rows(directory / "fleet", rounds=rounds),
        "scale": scale.rows(directory / "scale"),
        "compose": compose.rows(seconds=seconds, rounds=rounds),
    }


def _memory() -> str | None:
    """Where Varnish's log does not wait for a disk, as its own manual wants it; None: wherever temporary files go."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  a directory of random name is made in it


def _cells(row: Row) -> list[str]:
    ratios = [r.text(".2f") if r else "" for r in (row.rate, row.cpu)]
    return [row.name, row.ours, row.other, *ratios, f"≥ {row.goal:.2f}" if row.goal else ""]


_PROGRAMS = {"Varnish": "varnishd", "nginx": "nginx", "wrk": "wrk", "HAProxy": "haproxy"}
_HEADS = ("", "Pinrail", "against", "ratio of requests/s", "ratio by CPU time", "goal")


def _table(rows: list[Row]) -> Table:
    table = Table(*_HEADS)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _page(rows: list[Row], command: str, seconds: int, rounds: int, busy: float, programs: str) -> str:
    lines = [" | ".join(("", *cells, "")).strip() for cells in (_HEADS, ["---"] * len(_HEADS), *map(_cells, rows))]
    table = "\n".join(lines)
    bound = "varnishd has one of them, wrk and nginx the other" if len(cores()) > 1 else "shared by all programs"
    return f"""# Benchmarks

Written by `{command}`; not by hand. {len(cores())} cores ({bound}); {programs}.
Median (least–most) of {rounds} rounds; each measures Pinrail and then the other, {seconds} s each; a ratio is of one
round. Requests per second are this machine's, with whatever else it does (load average {busy:.1f} when this began); the
ratio by CPU time is of requests per second that varnishd itself spent on a core, which others' work disturbs less.
Nothing fails when a goal is missed.

{table}

*Pinrail* is the rendered production VCL behind the root and its label, with two versions of three hosts, attestation
on, and varnishd's parameters as an edge sets them. *Bare Varnish* has the same storage (`{STORAGE}`), one version's
three hosts in a round-robin director with the same probe, the built-in VCL and all parameters as they come. The origin
is nginx, which answers any request with a stamped constant of 1 KiB; wrk asks over {CONNECTIONS} connections. Passed
requests carry a session cookie, which the built-in VCL passes too. Both keep their working directory in memory. Loads
are timed from the order to the answer, on an idle varnishd; gcc is what Debian's Varnish calls by itself, with -O2.
Counted are requests at about half of what varnishd can do, by a varnishlog and its reader beside it.
Switches and joins are those of real agents with a real ZooKeeper, all on this machine: ten edges that wake at once
share its cores, as ten machines would not. A switch is timed by the agents' logs, a join from the znode's creation to
the first answer of the new member (with the {SETTLE:g} s for which an agent gathers changes), phases as means of all
loads.
Builds are {transfer.FILES} files of {transfer.BYTES // 1000} kB, fetched by {transfer.HOSTS} hosts one after the other,
as they share no cores in a fleet, from a real S3 in Python that does, or from an nginx that gives
{transfer.FAR_MB} MB/s on a connection after {transfer.FAR_MS} ms; the ratio is of seconds. Ours are checked against
digest and limits, and durable; the other side's are neither. Disks are in memory, and before each side begins so much
of it is written to as either needs: a virtual machine may be lent its memory only then.
Rollouts at size are driven by the real barrier service on a real ZooKeeper, which all sessions share this machine with.
Edges and hosts are thin there: each has a session of its own and does to ZooKeeper what an agent does during a rollout,
but that edges count the members of a version and do not read what each says (an agent reads it once), and that nobody
looks again without cause, as agents do every few seconds. Hosts install nothing. Bytes are the kernel's count for the
barrier service (both its sessions), the thin sessions' own for the others.
Not measured here: TLS, large bodies, many objects, contention between cores.

What a hit costs more is spent in varnishd, not in the kernel. Counted in instructions (callgrind, once, by hand; the
kernel is left out), a hit costs bare Varnish 72 thousand, and Pinrail 93 without a pin, 97 with one in a header, 106
for an asset with one in its address, 114 for a first document, whose bucket is drawn and whose cookie is set. Of the
21 thousand that the plainest hit costs more, 5 are the root and the label, 5 the choice, 4 the rest of `vcl_recv`,
and 7 the answer: three header lines and the log record. It is a cost per request, whatever the size of the answer. A
header that is set costs 1 to 2 thousand, a variable 0.5, each statement of VCL 0.15. A ratio of 0.93 would leave 5 for
all of it: no request table that is written in VCL fits beside root and label. Where hits are all that matters,
`vsl_mask = "-Timestamp"` under `[varnish.parameters]` saves 15 of either side's, and the log's times with them.
"""


if __name__ == "__main__":
    sys.exit(main())
