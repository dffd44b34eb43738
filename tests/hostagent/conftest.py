"""A host of its own for each test, on a loopback address of its own."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.config import S3Config
from fleet.zk import ZooKeeper
from tests.hostagent.fleet import Host
from tests.s3_fixtures import s3, s3_config, store

__all__ = ["s3", "s3_config", "store"]

_addresses = itertools.count(1)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """pytest's own directories are too deep for sockets."""
    with tempfile.TemporaryDirectory(prefix="pinrail-") as d:
        yield Path(d)


@pytest.fixture
def bare_host(short_tmp: Path, zk: ZooKeeper, zk_address: str, s3_config: S3Config) -> Iterator[Host]:
    """Nothing runs yet."""
    n = next(_addresses)
    address = f"127.{60 + os.getpid() % 60}.{os.getpid() // 60 % 250}.{n}"
    made = Host(short_tmp / "h", zk, zk_address, s3_config, address=address)
    yield made
    made.stop()


@pytest.fixture
def host(bare_host: Host) -> Host:
    """Server and agent run; the service has its config and nothing enabled."""
    bare_host.start_server()
    bare_host.configure()
    bare_host.start_agent()
    return bare_host
