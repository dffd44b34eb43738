"""Who may do what in ZooKeeper: asked of a real server, with sessions that know no secret, or another part's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kazoo import exceptions as kx
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from fleet import paths
from fleet.access import ROLES, Access, Role, issue
from fleet.config import BadConfig
from fleet.zk import Check, Create, Delete, Denied, Set, ZooKeeper, read_access
from pinrail.local import toml

FILES = issue({role: f"{role}-secret-of-this-fleet" for role in ROLES})
Connect = Callable[..., ZooKeeper]


@pytest.fixture
def of(connect: Connect) -> Callable[[Role], ZooKeeper]:
    return lambda role: connect(access=FILES[role])


@pytest.fixture
def raw(zk_address: str) -> Iterator[Callable[..., KazooClient]]:
    made: list[KazooClient] = []

    def start(user: str | None = None) -> KazooClient:
        client = KazooClient(zk_address, auth_data=[("digest", user)] if user else [])
        client.start(10)
        made.append(client)
        return client

    yield start
    for client in made:
        client.stop()
        client.close()


def lay_out(barrier: ZooKeeper) -> None:
    for path in (*paths.TOP, paths.acks("shop"), paths.hosts("shop"), paths.serversets("shop"), paths.turns("shop")):
        barrier.ensure(path)
    barrier.create(paths.plan("shop"), b"{}")
    barrier.commit([Create(paths.config("shop"), b"{}"), Create(paths.active_rollout("shop"), b"1")])


def everything(client: KazooClient, path: str = "/") -> list[str]:
    below = client.get_children(path)
    return [path, *(p for name in below for p in everything(client, f"{path.rstrip('/')}/{name}"))]


def test_who_is_not_of_the_fleet_can_neither_write_nor_read(
    of: Callable[[Role], ZooKeeper], raw: Callable[..., KazooClient]
) -> None:
    barrier, edge, host = of("barrier"), of("edge"), of("host")
    lay_out(barrier)
    edge.hold_ephemeral(paths.edge("edge-1"), b"{}")
    edge.create(paths.rostered("edge-1"), b"{}")
    edge.hold_ephemeral(paths.ack("shop", "edge-1"), b"{}")
    host.hold_ephemeral(paths.host("shop", "host-1"), b"{}")
    host.hold_ephemeral(paths.member("shop", "A", "10.0.0.1:8000"), b"{}")
    nodes = everything(raw(f"barrier:{FILES['barrier'].secret}"))
    assert {paths.member("shop", "A", "10.0.0.1:8000"), paths.plan("shop"), "/"} <= set(nodes)
    for user in (None, "barrier:guess", "edge:barrier-secret-of-this-fleet"):
        client = raw(user)
        for node in nodes:
            for attempt in (
                lambda c=client, n=node: c.set(n, b"mine"),
                lambda c=client, n=node: c.create(f"{n.rstrip('/')}/mine", b""),
                lambda c=client, n=node: c.set_acls(n, [make_digest_acl("me", "me", all=True)]),
                lambda c=client, n=node: c.get(n),
            ):
                with pytest.raises(kx.NoAuthError):
                    attempt()  # type: ignore[no-untyped-call]
            if node != "/" and not barrier.children(node):
                with pytest.raises(kx.NoAuthError):
                    client.delete(node)


def test_a_part_writes_what_is_its_own_and_nothing_else(of: Callable[[Role], ZooKeeper]) -> None:
    barrier, edge, host = of("barrier"), of("edge"), of("host")
    lay_out(barrier)
    edge.create(paths.rostered("edge-1"), b"{}")
    for part in (edge, host):
        assert part.get(paths.plan("shop")) is not None, "everybody reads"
        for ops in (
            [Set(paths.plan("shop"), b"mine", 0)],
            [Create(f"{paths.turns('shop')}/host-1", b"")],
            [Check(paths.plan("shop"), 0), Delete(paths.rostered("edge-1"))],
            [Create(f"{paths.CANDIDATES}/n-", b"", sequence=True)],
            [Create(f"{paths.AUDIT}/{paths.AUDIT_PREFIX}", b"", sequence=True)],
        ):
            with pytest.raises(Denied, match="does not let"):
                part.commit(ops)  # type: ignore[arg-type]
    with pytest.raises(Denied, match=r"does not let edge .* at /services/shop/hosts/host-1"):
        edge.hold_ephemeral(paths.host("shop", "host-1"), b"{}")
    with pytest.raises(Denied):
        host.hold_ephemeral(paths.ack("shop", "edge-1"), b"{}")
    # the dead session's node is replaced by whoever has the same role
    again = of("edge")
    edge.hold_ephemeral(paths.ack("shop", "edge-1"), b"old")
    again.hold_ephemeral(paths.ack("shop", "edge-1"), b"new")
    barrier.delete(paths.rostered("edge-1"))


def test_anybody_may_read_where_that_is_wanted(connect: Connect, raw: Callable[..., KazooClient]) -> None:
    files = issue({role: "s" * 20 + role for role in ROLES}, anyone_reads=True)
    barrier = connect(access=files["barrier"])
    lay_out(barrier)
    nobody = raw()
    assert nobody.get(paths.plan("shop"))[0] == b"{}"
    assert nobody.get_children(paths.SERVICES) == ["shop"]
    with pytest.raises(kx.NoAuthError):
        nobody.set(paths.plan("shop"), b"mine")


def test_before_the_barrier_service_has_run_an_edge_says_what_it_waits_for(of: Callable[[Role], ZooKeeper]) -> None:
    edge = of("edge")
    with pytest.raises(Denied, match="is a barrier service running yet"):
        edge.hold_ephemeral(paths.edge("edge-1"), b"{}")
    lay_out(of("barrier"))
    edge.hold_ephemeral(paths.edge("edge-1"), b"{}")


def test_the_file_must_be_private_of_the_right_role_and_below_a_chroot(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(toml.of_model(FILES["edge"]))
    file.chmod(0o640)
    with pytest.raises(BadConfig, match="chmod 600"):
        read_access(file, "edge")
    file.chmod(0o600)
    assert read_access(file, "edge") == FILES["edge"]
    with pytest.raises(BadConfig, match="is the file of role 'edge', and this part's is 'host'"):
        read_access(file, "host")
    with pytest.raises(BadConfig, match="cannot read"):
        read_access(file.with_name("none"), "edge")
    with pytest.raises(BadConfig, match="needs a chroot"):
        ZooKeeper("127.0.0.1:1", wake=lambda: None, access=FILES["edge"])
    assert read_access(None, "edge") is None
    assert "secret-of" not in repr(FILES["edge"])
    assert "secret-of" not in str(Access.model_fields)
