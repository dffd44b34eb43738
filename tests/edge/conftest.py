from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.zk import ZooKeeper
from tests.edge.bed import Edge, World, make_edge, make_nginx_edge


@pytest.fixture
def world(zk: ZooKeeper) -> Iterator[World]:
    world = World(zk)
    yield world
    world.close()


@pytest.fixture
def edge(tmp_path: Path, zk_address: str, zk: ZooKeeper) -> Iterator[Edge]:
    made = make_edge(tmp_path, zk_address, zk)
    yield made
    made.close()


@pytest.fixture
def nginx_edge(tmp_path: Path, zk_address: str, zk: ZooKeeper) -> Iterator[Edge]:
    made = make_nginx_edge(tmp_path, zk_address, zk)
    yield made
    made.close()
