"""A real nginx with every service of ``cases`` that it can express: requests in, answers and their log records out."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge.config import EdgeConfig, NginxConfig
from edge.nginx import render, server
from edge.nginx.requests import records
from edge.render import Route
from pinrail.local.ports import free_port
from tests.conftest import eventually
from tests.table.cases import SERVICES, VERSIONS, members
from tests.table.origin import Origin
from tests.table.request import Request
from tests.table.varnish import Observed
from tests.table.wire import Wire

_MARK = "x-mark"
EXPRESSED = tuple(s for s in SERVICES if s.config.pin.header.replace("-", "").isalnum())


class Bed:
    def __init__(self, listen: str, log: Path) -> None:
        self._log = log
        self._wire = Wire(listen)
        self._sent = 0

    def observe(self, requests: Sequence[Request]) -> list[Observed]:
        first = self._sent
        answers = [self._wire.ask(self._marked(r)) for r in requests]
        last = self._sent
        self._wire.ask(self._marked(Request(headers=(("Host", " pinned.example"),))))
        eventually("the log has all records", lambda: f"\n{last} " in self._log.read_text(errors="replace"))
        found: dict[int, tuple[str, ...]] = {}
        for line in self._log.read_bytes().splitlines():
            mark, _, rest = line.partition(b" ")
            if mark.isdigit():
                texts = [r.decode() for r in records(Counter([rest]), delivered=False)]
                found[int(mark)] = (*found.get(int(mark), ()), *texts)
        return [Observed(a, found.get(first + n, ())) for n, a in enumerate(answers)]

    def close(self) -> None:
        self._wire.close()

    def _marked(self, request: Request) -> Request:
        marked = replace(request, headers=((_MARK, f" {self._sent}"), *request.headers))
        self._sent += 1
        return marked


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[Bed]:
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    own = NginxConfig(listen=listen, admin=admin, user="root", workers=1)
    config = EdgeConfig(name="table", engine="nginx", zookeeper="unused:2181", directory=directory, nginx=own)
    server.prepare(config)
    place = server.place(config)
    origin = Origin(VERSIONS)
    with contextlib.ExitStack() as stack:
        stack.callback(origin.close)
        parts = []
        for s in EXPRESSED:
            sets = {v: h for v, h in members(s, origin.ports).items() if v in s.healthy}
            parts.append(render.part(s.name, s.config, s.plan, sets, place))
        text = render.configuration(parts, [Route(s.name, s.config.match) for s in EXPRESSED], place).text
        for s in EXPRESSED:  # each record with the request that it is of
            text = text.replace(f'"{s.name} ', f'"$http_x_mark {s.name} ')
        server.config_file(config).write_text(text)
        out = stack.enter_context((directory / "log").open("wb"))
        argv = [*server.argv(config, server.config_file(config)), "-g", "daemon off;"]
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        stack.callback(child.wait, 15)
        stack.callback(child.terminate)
        log = server.directory(config) / "requests.log"
        bed = Bed(listen, log)
        stack.callback(bed.close)
        eventually("nginx serves", log.exists)
        yield bed
