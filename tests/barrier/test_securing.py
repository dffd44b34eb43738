"""A fleet that was open is locked without anybody noticing: `pinrail barrier access`, then `pinrail barrier secure`."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from kazoo import exceptions as kx
from kazoo.client import KazooClient
from typer.testing import CliRunner

from barrier.store import Store, services
from fleet import paths
from fleet.access import ROLES
from fleet.model import ServiceConfig
from fleet.zk import Denied, ZooKeeper, read_access
from pinrail.cli import app
from tests.barrier.conftest import ANN
from tests.barrier.http import write_tokens


@pytest.fixture
def nobody(connect: Callable[..., ZooKeeper], zk_address: str) -> Iterator[KazooClient]:
    connect(access=None)  # it makes the chroot
    client = KazooClient(zk_address)
    client.start(10)
    yield client
    client.stop()
    client.close()


def pinrail(*argv: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["barrier", *map(str, argv)])
    assert done.exit_code == code, done.output
    return done


def test_an_open_fleet_is_locked(
    connect: Callable[..., ZooKeeper], zk_address: str, nobody: KazooClient, tmp_path: Path
) -> None:
    before = connect(access=None)
    for path in paths.TOP:
        before.ensure(path)
    services.configure(Store(before), "shop", ServiceConfig(), ANN)
    before.hold_ephemeral(paths.ack("shop", "edge-1"), b"{}")  # of an agent that has not been restarted yet
    nobody.set(paths.plan("shop"), b"")
    made = pinrail("access", tmp_path / "access").stdout.split()
    assert made == [str(tmp_path / "access" / f"{r}.toml") for r in ROLES]
    assert {stat.S_IMODE(Path(f).stat().st_mode) for f in made} == {0o600}
    assert "exists already" in pinrail("access", tmp_path / "access", code=2).stderr
    config = tmp_path / "barrier.toml"
    write_tokens(tmp_path / "tokens.toml", {})
    text = f'name = "b"\nzookeeper = "{zk_address}"\ntokens = "{tmp_path}/tokens.toml"\n'
    config.write_text(text)
    assert "names no zookeeper_access" in pinrail("secure", "--config", config, code=2).stderr
    config.write_text(f'{text}zookeeper_access = "{made[0]}"\n')
    said = pinrail("secure", "--config", config).stderr
    count = int(said.split()[0])
    assert said == f"{count} nodes, {count} of them locked now\n"
    for path in ("/", paths.plan("shop"), paths.ROSTER, paths.ack("shop", "edge-1")):
        with pytest.raises(kx.NoAuthError):
            nobody.create(f"{path.rstrip('/')}/x", b"")
        with pytest.raises(kx.NoAuthError):
            nobody.set(path, b"")
    edge = connect(access=read_access(Path(made[1]), "edge"))
    edge.hold_ephemeral(paths.ack("shop", "edge-1"), b"{}")
    edge.create(paths.rostered("edge-1"), b"{}")
    assert f"{count + 1} nodes, 0 of them" in pinrail("secure", "--config", config).stderr

    new = pinrail("access", tmp_path / "new").stdout.split()
    config.write_text(f'{text}zookeeper_access = "{new[0]}"\n')
    assert "does not let barrier" in pinrail("secure", "--config", config, code=1).stderr
    assert (
        f"{count + 1} nodes, {count + 1} of them" in pinrail("secure", "--config", config, "--before", made[0]).stderr
    )
    assert connect(access=read_access(Path(new[1]), "edge")).get(paths.plan("shop")) is not None
    with pytest.raises(Denied):
        edge.get(paths.plan("shop"))
