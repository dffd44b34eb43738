"""The files that a local fleet's parts read, and the argv of each part. Owns everything below ``config/``."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

from barrier.config import BarrierConfig, TokenEntry, TokensFile
from edge.config import EdgeConfig, NginxConfig, VarnishConfig
from fleet import access
from fleet.access import Role
from fleet.config import FileModel, S3Config
from fleet.files import write_atomic
from fleet.signing import PrivateKey
from hostagent.config import HostConfig
from pinrail.local import layout, s3server, toml, tools, zookeeper
from pinrail.local.programs import Program
from pinrail.local.state import EdgeState, FleetState, HostState
from pipeline import signatures

_SECRET = 0o600
#: In a checkout the fleet's Prometheus evaluates the rules that operators are given.
RULES = Path(__file__).parents[2] / "compose" / "prometheus" / "rules.yml"
#: A part that died is noticed by its ZooKeeper session; short, as everything here is on one machine.
SESSION_SECONDS = 6.0


def _pinrail(*words: str | Path) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "pinrail", *map(str, words))


def _listen(url: str) -> str:
    return urlsplit(url).netloc


def _write(path: Path, model: FileModel) -> Path:
    write_atomic(path, toml.of_model(model), _SECRET)
    return path


def signing_key(fleet: FleetState) -> PrivateKey:
    """What its builds are signed with, and all that its hosts believe. Raises BadConfig."""
    return signatures.read_key(_signing_file(layout.of(fleet)))


def _signing_file(where: layout.Layout) -> Path:
    return where.config(layout.SIGNING)


def s3_config(fleet: FleetState) -> S3Config:
    return S3Config(endpoint=fleet.s3, bucket=fleet.bucket, credentials=fleet.s3_credentials)


def write(fleet: FleetState) -> list[Program]:
    """Write every part's files; the programs to run. Raises OSError and ``zookeeper.Missing``."""
    where = layout.of(fleet)
    for directory in (where.config("x").parent, where.logs, where.data("x").parent, where.run):
        directory.mkdir(mode=0o700, exist_ok=True)
    _access(where)
    signatures.new_key(_signing_file(where))
    programs = [*_zookeepers(fleet, where), _s3(fleet, where)]
    programs += [_barrier(fleet, where, b.id, b.url) for b in fleet.barrier]
    for edge in fleet.edges:
        programs += _edge(fleet, where, edge)
    for host in fleet.hosts:
        programs += _host(fleet, where, host)
    if fleet.prometheus:
        programs.append(_prometheus(fleet, where))
    return programs


def _access_file(where: layout.Layout, role: Role) -> Path:
    return where.config(f"zookeeper-{role}.toml")


def _access(where: layout.Layout) -> None:
    """Whoever looks around in the fleet's ZooKeeper may read it; only the fleet's own parts may write."""
    for role, file in access.issue({r: secrets.token_urlsafe(24) for r in access.ROLES}, anyone_reads=True).items():
        _write(_access_file(where, role), file)


def _zookeepers(fleet: FleetState, where: layout.Layout) -> list[Program]:
    servers = fleet.zookeeper.servers
    ensemble = [zookeeper.Peer(s.address.partition(":")[0], *s.peers) for s in servers if s.peers]
    programs = []
    for number, server in enumerate(servers, 1):
        host, _, port = server.address.partition(":")
        argv = zookeeper.prepare(where.data(server.id), host, int(port), ensemble, number)
        programs.append(Program(server.id, "zookeeper", tuple(argv), ready_seconds=60))
    return programs


def _s3(fleet: FleetState, where: layout.Layout) -> Program:
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    write_atomic(
        fleet.s3_credentials, f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n", _SECRET
    )
    url = urlsplit(fleet.s3)
    argv = s3server.argv(where.data("s3"), url.hostname or "", url.port or 0, fleet.bucket)
    environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    return Program("s3", "s3", tuple(argv), ready_seconds=90, environment=environment)


def _barrier(fleet: FleetState, where: layout.Layout, name: str, url: str) -> Program:
    hashed = [
        TokenEntry(name=role, role=role, sha256=hashlib.sha256(token.encode()).hexdigest())
        for role, token in (("read", fleet.token.read), ("deploy", fleet.token.deploy), ("admin", fleet.token.admin))
    ]
    tokens = _write(where.config("tokens.toml"), TokensFile(token=tuple(hashed)))
    config = BarrierConfig(
        name=name,
        zookeeper=fleet.zookeeper.connect,
        zookeeper_access=_access_file(where, "barrier"),
        listen=_listen(url),
        tokens=tokens,
        session_seconds=SESSION_SECONDS,
        s3=s3_config(fleet),
    )
    path = _write(where.config(f"{name}.toml"), config)
    return Program(name, "barrier", _pinrail("barrier", "run", "--config", path), ready_seconds=90)


def _edge(fleet: FleetState, where: layout.Layout, edge: EdgeState) -> list[Program]:
    directory = where.data(edge.id)
    directory.mkdir(exist_ok=True)
    config = EdgeConfig(
        name=edge.id,
        engine=edge.engine,
        zookeeper=fleet.zookeeper.connect,
        zookeeper_access=_access_file(where, "edge"),
        directory=directory,
        metrics=_listen(edge.metrics),
        url=edge.url,
        session_seconds=SESSION_SECONDS,
        varnish=VarnishConfig(
            listen=_listen(edge.url),
            admin=edge.admin,
            program=tools.find("varnishd") or "varnishd",
            storage="malloc,64m",
            # Varnish's own user may not read a directory of ours.
            jail="none",
        ),
        nginx=NginxConfig(
            listen=_listen(edge.url),
            admin=edge.admin,
            program=tools.find("nginx") or "nginx",
            user="root" if os.geteuid() == 0 else "www-data",
            workers=2,
        ),
    )
    path = _write(where.config(f"{edge.id}.toml"), config)
    return [
        Program(f"{edge.id}-server", "edge-server", _pinrail("edge", "server", "--config", path), ready_seconds=90),
        Program(edge.id, "edge", _pinrail("edge", "run", "--config", path), ready_seconds=90),
    ]


def _host(fleet: FleetState, where: layout.Layout, host: HostState) -> list[Program]:
    directory = where.data(host.id)
    run = fleet.run / host.id
    for made in (directory, run):
        made.mkdir(mode=0o700, exist_ok=True)
    config = HostConfig(
        name=host.id,
        address=host.address,
        zookeeper=fleet.zookeeper.connect,
        zookeeper_access=_access_file(where, "host"),
        directory=directory,
        run=run,
        metrics=_listen(host.metrics),
        # The sample service runs on the interpreter, and with the packages, that run Pinrail.
        path=(Path(sys.executable).parent,),
        nginx_user="root" if os.geteuid() == 0 else "www-data",
        # Nobody but the caller can reach the fleet's directory, users of services included.
        service_users=False,
        session_seconds=SESSION_SECONDS,
        signing_keys=(signing_key(fleet).public.text,),
        s3=s3_config(fleet),
    )
    path = _write(where.config(f"{host.id}.toml"), config)
    return [
        Program(
            f"{host.id}-server",
            "host-server",
            _pinrail("host", "server", "--config", path),
            ready_seconds=90,
            stop_seconds=15,
        ),
        Program(host.id, "host", _pinrail("host", "run", "--config", path), ready_seconds=90),
    ]


def _prometheus(fleet: FleetState, where: layout.Layout) -> Program:
    jobs = {
        "edge": [_listen(e.metrics) for e in fleet.edges],
        "host": [_listen(h.metrics) for h in fleet.hosts],
        "barrier": [_listen(b.url) for b in fleet.barrier],
    }
    lines = ["global:", "  scrape_interval: 5s", "  scrape_timeout: 4s", "  evaluation_interval: 5s"]
    if RULES.exists():
        lines.append(f"rule_files: [{json.dumps(str(RULES))}]")
    lines.append("scrape_configs:")
    for job, targets in jobs.items():
        quoted = ", ".join(f'"{t}"' for t in targets)
        lines += [f"  - job_name: {job}", "    static_configs:", f"      - targets: [{quoted}]"]
    path = where.config("prometheus.yml")
    write_atomic(path, "\n".join(lines) + "\n", _SECRET)
    argv = (
        tools.find("prometheus") or "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={where.data('prometheus')}",
        "--storage.tsdb.retention.time=6h",
        f"--web.listen-address={_listen(fleet.prometheus or '')}",
        "--log.level=warn",
    )
    return Program("prometheus", "prometheus", argv, ready_seconds=90)
