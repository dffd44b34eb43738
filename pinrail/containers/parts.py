"""From what a container is told to what it runs: each part's own file, below /run/pinrail, and the commands.

Ports are the same in every container: 8080 requests, 8300 the API, 8000 and 8001 the slots, 9101 and 9102 metrics, 2181
ZooKeeper, 8333 S3. What cannot work is said before anything is started. Raises BadConfig.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path
from typing import NoReturn

from barrier.config import BarrierConfig
from edge.config import EdgeConfig, NginxConfig, VarnishConfig
from fleet.config import BadConfig, FileModel, S3Config
from fleet.files import read_or_none, write_atomic
from hostagent.config import HostConfig
from pinrail.containers import given, secrets
from pinrail.local import s3server, toml, zookeeper

_RUN, _DATA = Path("/run/pinrail"), Path("/var/lib/pinrail")
_ANY = "0.0.0.0"  # noqa: S104  a container's network is its own
#: Java keeps an address that could not be found for ten seconds; a peer that is started later is found sooner so.
_LOOK_AGAIN = "-Dsun.net.inetaddr.negative.ttl=1"


def _pinrail(*words: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "pinrail", *map(str, words)]


def _write(name: str, model: FileModel) -> Path:
    path = _RUN / f"{name}.toml"
    try:
        _RUN.mkdir(parents=True, exist_ok=True)
        write_atomic(path, toml.of_model(model), 0o600)
    except OSError as e:
        raise BadConfig(f"cannot write {path}: {e.strerror}") from e
    return path


def _secret(kind: str, name: str) -> Path:
    path = secrets.ROOT / kind / name
    if not path.exists():
        raise BadConfig(f"{path} is not there: `pinrail container secrets` makes it, and its volume must be mounted")
    return path


def _s3(kind: str, url: str, bucket: str) -> S3Config:
    return S3Config(endpoint=url, bucket=bucket, credentials=_secret(kind, secrets.S3_KEYS))


def edge(told: given.Edge) -> tuple[EdgeConfig, list[str], list[str]]:
    """Its configuration, its server and its agent."""
    given.free(8080, 9101)
    config = EdgeConfig(
        name=told.name,
        engine=told.engine,
        zookeeper=told.zookeeper,
        zookeeper_access=_secret("edge", secrets.ZOOKEEPER),
        directory=given.room(_DATA / "edge"),
        metrics=f"{_ANY}:9101",
        url=f"http://{told.name}:8080",
        session_seconds=told.session_seconds,
        # The jail is for a varnishd that is root; this one is nobody in particular.
        varnish=VarnishConfig(listen=f"{_ANY}:8080", storage=told.storage, jail="none"),
        nginx=NginxConfig(listen=f"{_ANY}:8080"),
    )
    path = _write("edge", config)
    return config, _pinrail("edge", "server", "--config", path), _pinrail("edge", "run", "--config", path)


def host(told: given.Host) -> tuple[list[str], list[str]]:
    """Its server and its agent."""
    given.free(9102)
    config = HostConfig(
        name=told.name,
        role=told.role,
        address=told.address,
        zookeeper=told.zookeeper,
        zookeeper_access=_secret("host", secrets.ZOOKEEPER),
        directory=given.room(_DATA / "host"),
        run=_RUN / "host",
        metrics=f"{_ANY}:9102",
        path=(Path(sys.executable).parent,),
        session_seconds=told.session_seconds,
        signing_keys=tuple((read_or_none(_secret("host", secrets.SIGNERS)) or b"").decode().split()),
        s3=_s3("host", told.s3, told.bucket),
    )
    path = _write("host", config)
    return _pinrail("host", "server", "--config", path), _pinrail("host", "run", "--config", path)


def barrier(told: given.Barrier) -> list[str]:
    given.free(8300)
    config = BarrierConfig(
        name=told.name,
        zookeeper=told.zookeeper,
        zookeeper_access=_secret("barrier", secrets.ZOOKEEPER),
        listen=f"{_ANY}:8300",
        tokens=_secret("barrier", secrets.TOKENS),
        session_seconds=told.session_seconds,
        s3=_s3("barrier", told.s3, told.bucket),
    )
    return _pinrail("barrier", "run", "--config", _write("barrier", config))


def keeper(told: given.ZooKeeper) -> list[str]:
    """One server of the ensemble that PINRAIL_ZOOKEEPER names; alone where it names one."""
    names = [server.partition(":")[0] for server in told.zookeeper.partition("/")[0].split(",")]
    if told.name not in names:
        raise BadConfig(f"PINRAIL_NAME = {told.name!r} is none of PINRAIL_ZOOKEEPER's servers: {', '.join(names)}")
    ensemble = [zookeeper.Peer(n, 2888, 3888) for n in names] if len(names) > 1 else []
    given.free(2181)
    directory = given.room(_DATA / "zookeeper")
    try:
        java, *rest = zookeeper.prepare(directory, _ANY, 2181, ensemble, names.index(told.name) + 1)
    except zookeeper.Missing as e:
        raise BadConfig(str(e)) from e
    return [java, _LOOK_AGAIN, *rest]


def s3(told: given.S3) -> NoReturn:
    """Becomes it; the key goes into its environment."""
    given.free(8333)
    keys = configparser.ConfigParser()
    keys.read(_secret("s3", secrets.S3_KEYS))
    argv = s3server.argv(given.room(_DATA / "s3"), _ANY, 8333, told.bucket)
    environment = {name.upper(): value for name, value in keys["default"].items()}
    os.execve(argv[0], argv, {**os.environ, **environment})  # noqa: S606  no shell is the point
