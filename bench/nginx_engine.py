"""What the request table costs an edge on nginx: passes against nginx with one upstream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.measure import Row, alternating, compared, load
from bench.servers import PLAN, SERVICE, on, origin, running, until
from edge.config import EdgeConfig, NginxConfig
from edge.members import Host
from edge.nginx import render, server
from edge.nginx.orphans import title
from edge.render import Route
from fleet import local_http
from fleet.config import BadConfig
from pinrail.local.ports import free_port

_HEADERS = {"x-deployment-id": "A", "Cookie": "session=0123456789abcdef"}
_ATTEST = {
    "answers": "nginx engine, pass, pinned, with a cookie",
    "hosts": "the same, answers not checked by njs",
}


class Server:
    """An nginx that answers at ``listen`` with one worker."""

    def __init__(self, listen: str, pid_file: Path) -> None:
        self.listen = listen
        self._pid_file = pid_file

    def cpu_seconds(self) -> float:
        """Time on a core that the worker has used in its life, in the kernel too."""
        master = int(self._pid_file.read_text())
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        (worker,) = (pid for pid in children if title(int(pid)).startswith(b"nginx: worker process"))
        fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rows(directory: Path, *, seconds: int, rounds: int) -> Iterator[Row]:
    with origin(directory / "nginx-origin") as sets, _bare(directory / "nginx-bare", sets["A"]) as bare:
        for attest, name in _ATTEST.items():
            config = _config(directory / f"nginx-{attest}", attest)
            try:
                server.prepare(config)
            except BadConfig as e:
                yield Row(name, str(e), "not measured")
                continue
            with _pinrail(config, sets) as ours:
                ask = partial(load, path="/api", headers=_HEADERS, seconds=seconds)
                pairs = alternating(partial(ask, ours), partial(ask, bare), rounds)
                yield compared(name, pairs, "bare nginx, one upstream", 0.95)


def _config(directory: Path, attest: str) -> EdgeConfig:
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    nginx = NginxConfig.model_validate(
        {"listen": listen, "admin": admin, "user": "root", "workers": 1, "attest": attest}
    )
    return EdgeConfig(name="bench", engine="nginx", zookeeper="unused:2181", directory=directory, nginx=nginx)


@contextlib.contextmanager
def _pinrail(config: EdgeConfig, sets: Mapping[str, tuple[Host, ...]]) -> Iterator[Server]:
    """The rendered production configuration, its log of requests included."""
    place = server.place(config)
    part = render.part("app", SERVICE, PLAN, sets, place)
    file = server.config_file(config)
    file.write_text(render.configuration([part], [Route("app", SERVICE.match)], place).text)
    argv = [*server.argv(config, file), "-g", "daemon off;"]
    with _serving(argv, config.nginx.listen, server.directory(config)) as made:
        yield made


@contextlib.contextmanager
def _bare(directory: Path, hosts: Sequence[Host]) -> Iterator[Server]:
    """The least that a person would write: one upstream with kept connections."""
    directory.mkdir()
    listen = f"127.0.0.1:{free_port()}"
    servers = " ".join(f"server {h.endpoint};" for h in hosts)
    (directory / "nginx.conf").write_text(
        f"pid {directory}/nginx.pid; error_log {directory}/error.log; worker_processes 1;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; upstream hosts {{ {servers} keepalive 64; }}\n"
        f"server {{ listen {listen} backlog=4096; location / {{ proxy_http_version 1.1;\n"
        'proxy_set_header Connection "";\n'
        "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "proxy_pass http://hosts; } } }\n"
    )
    argv = ["nginx", "-p", str(directory), "-c", "nginx.conf", "-g", "daemon off;"]
    with _serving(argv, listen, directory) as made:
        yield made


@contextlib.contextmanager
def _serving(argv: Sequence[str], listen: str, directory: Path) -> Iterator[Server]:
    with running(on(0, argv), directory / "log"):
        until(f"nginx answers on {listen}; see {directory / 'log'}", partial(_answers, listen))
        yield Server(listen, directory / "nginx.pid")


def _answers(listen: str) -> bool:
    connection = local_http.connection(listen, 2)
    try:
        connection.request("GET", "/api")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
