"""A real varnishd with every service of ``cases`` in it: requests in, answers and their log records out."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge import render, server
from edge.config import EdgeConfig, VarnishConfig
from edge.render import Route
from edge.varnish import Varnish, VarnishTrouble
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.table.cases import SERVICES, VERSIONS, members
from tests.table.origin import Origin
from tests.table.request import Request
from tests.table.wire import Response, Wire

_MARK = "x-mark"
#: Headers that Connection must not take away: Varnish refuses who tries.
_END_TO_END = frozenset({"cookie", "host", "authorization", "content-length", "accept", "range"})


@dataclass(frozen=True)
class Observed:
    response: Response
    #: The log records of it, in order; where all is well one, or none where no service was asked.
    records: tuple[str, ...]


def refuses(request: Request) -> bool:
    """What Varnish itself calls a bad request, beyond what HTTP asks of any server."""
    options = ",".join(request.all("Connection")).lower().split(",")
    return (request.method == "HEAD" and request.body != b"") or not _END_TO_END.isdisjoint(o.strip() for o in options)


class Bed:
    def __init__(self, listen: str, log: Path) -> None:
        self._log = log
        self._wires = [Wire(listen) for _ in range(3)]
        self._sent = 0

    def observe(self, requests: Sequence[Request]) -> list[Observed]:
        first = self._sent
        answers = []
        for request in requests:
            answers.append(self._wires[self._sent % len(self._wires)].ask(self._marked(request)))
        eventually("the log has all records", self.is_logged)
        records = self._records()
        return [Observed(a, tuple(records.get(first + n, ()))) for n, a in enumerate(answers)]

    def is_logged(self) -> bool:
        """Is varnishlog there, and has it written all that was asked? Asks once more to know: it begins at the tail."""
        last = self._sent
        self._wires[0].ask(self._marked(Request(headers=(("Host", " pinned.example"),))))
        return f"{_MARK}: {last}!" in self._log.read_text(errors="replace")

    def close(self) -> None:
        for wire in self._wires:
            wire.close()

    def _marked(self, request: Request) -> Request:
        marked = replace(request, headers=((_MARK, f" {self._sent}!"), *request.headers))
        self._sent += 1
        return marked

    def _records(self) -> dict[int, list[str]]:
        """Mark -> records. A request's transactions, restarts too, are one paragraph of varnishlog."""
        found: dict[int, list[str]] = {}
        for paragraph in self._log.read_text(errors="replace").split("\n\n"):
            mark = re.search(rf"ReqHeader +{_MARK}: (\d+)!", paragraph)
            if mark:
                found[int(mark[1])] = re.findall(r"VCL_Log +(pinrail .*)", paragraph)
        return found


@contextlib.contextmanager
def varnish(directory: Path) -> Iterator[Bed]:
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = EdgeConfig(
        name="table",
        zookeeper="unused:2181",
        directory=directory,
        varnish=VarnishConfig(listen=listen, admin=admin, jail="none", storage="malloc,16m"),
    )
    server.prepare(config)
    origin = Origin(VERSIONS)
    log = directory / "requests"
    with contextlib.ExitStack() as stack:
        stack.callback(origin.close)
        _run(stack, server.argv(config), directory / "varnishd.log")
        cli = Varnish(admin, server.secret_file(config), deadline=30)
        stack.callback(cli.close)
        eventually("varnishd has a child", lambda: _has_child(cli), 30)
        for service in SERVICES:
            vcl = render.service(service.name, service.config, service.plan, members(service, origin.ports))
            cli.load(vcl.name, vcl.text)
            well = {b for b, (v, _) in vcl.backends.items() if v in service.healthy}
            eventually(
                f"{service.name} knows who is well",
                lambda n=vcl.name, w=well: {b for b, h in cli.health(n).items() if h == "healthy"} == w,
            )
            cli.label(render.label(service.name), vcl.name)
        root = render.root([Route(s.name, s.config.match) for s in SERVICES], None)
        cli.load(root.name, root.text)
        cli.use(root.name)
        fields = ["-i", "VCL_Log", "-I", f"ReqHeader:^{_MARK}:"]
        _run(stack, ["varnishlog", "-n", str(server.workdir(config)), "-t", "30", "-g", "request", *fields], log)
        bed = Bed(listen, log)
        stack.callback(bed.close)
        eventually("varnishlog reads", bed.is_logged)
        yield bed


def _run(stack: contextlib.ExitStack, argv: list[str], log: Path) -> None:
    out = stack.enter_context(log.open("ab"))
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    stack.callback(child.wait, 15)
    stack.callback(child.terminate)


def _has_child(cli: Varnish) -> bool:
    try:
        return cli.look().child is not None
    except VarnishTrouble:
        return False
