"""One machine for all tests, on a loopback address of its own; a service of its own for each test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.s3 import ObjectStore
from fleet.zk import ZooKeeper
from tests.conftest import ZooKeeperServer
from tests.hostagent.fleet import Host, Machine
from tests.s3_fixtures import S3Server, s3, s3_config, store

__all__ = ["s3", "s3_config", "store"]

_services = itertools.count(1)


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """pytest's own directories are too deep for sockets."""
    with tempfile.TemporaryDirectory(prefix="pinrail-") as d:
        Path(d).chmod(0o755)  # nginx's workers are somebody else
        yield Path(d)


@pytest.fixture(scope="session")
def machine(short_tmp: Path, zookeeper_server: ZooKeeperServer, s3: S3Server) -> Iterator[Machine]:
    zk = ZooKeeper(f"127.0.0.1:{zookeeper_server.port}/hostagent", wake=lambda *_: None)
    zk.start()
    config = s3.config("hostagent")
    ObjectStore(config).make_bucket()
    address = f"127.{60 + os.getpid() % 60}.{os.getpid() // 60 % 250}.1"
    made = Machine(short_tmp / "h", zk, config, address=address)
    yield made
    made.stop()
    zk.close()


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    """Server and agent run; the service has its config and nothing enabled. At the end it is removed: the agent, which
    all tests share, looks at every service that there is, several times a second."""
    machine.ensure()
    made = Host(machine, f"app{next(_services)}")
    made.configure()
    yield made
    made.tell()  # pytest shows it where the test failed
    made.remove()
