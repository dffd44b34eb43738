"""Hosts that join, fail, vanish, die after their turn, or are replaced."""

from __future__ import annotations

from fleet.model import RolloutState as S
from hostagent.work import Check, Fetch, Revive
from tests.proof.scenarios.telling import scenario, until
from tests.proof.world import World


@scenario()
def host_joins(world: World) -> None:
    """A host joins while others install: it gets its turn, and the rollout waits for it."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.rounds(2)
    world.add_host("host-9")
    world.settle()


@scenario()
def failed_hosts_resumed(world: World) -> None:
    """C does not come up on a host: paused with the host's own words; the host is mended, and it goes on."""
    world.machines["host-2"].bad["C"] = (Check, "it exits with status 1")
    world.deploy("C")
    until(world, S.PAUSED)
    world.rounds(3)
    world.machines["host-2"].bad.clear()
    world.ask("resume")
    world.settle()


@scenario()
def failed_hosts_aborted(world: World) -> None:
    """C does not come up on a host: aborted, and A is put back where it was taken away."""
    world.machines["host-2"].bad["C"] = (Check, "it exits with status 1")
    world.deploy("C")
    until(world, S.PAUSED)
    world.ask("abort")
    world.settle()


@scenario()
def build_missing(world: World) -> None:
    """The build vanished from the store after it was accepted: no host can fetch it, and B is not touched."""
    for host in world.machines.values():
        host.bad["C"] = (Fetch, "s3: there is no builds/shop/C/archive.tar.zst")
    world.deploy("C")
    until(world, S.PAUSED)
    world.ask("abort")
    world.settle()


@scenario()
def host_vanishes(world: World) -> None:
    """A host is gone for good in its turn: after a while that is a failure, and the rollout is paused."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.rounds(2)
    world.remove_host("host-1")
    until(world, S.PAUSED)
    world.settle()


@scenario(config={"waves": {"concurrency": 1, "max_failures": 1}})
def host_vanishes_tolerated(world: World) -> None:
    """One failed host is tolerated: a host that is gone for good in its turn does not keep the others from theirs."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.rounds(2)
    world.remove_host("host-1")
    world.settle()


@scenario(config={"strategy": "inplace"}, before="A")
def dies_after_its_turn(world: World) -> None:
    """In place, and B ends a while after it was found well: one host is lost to that, and then nobody is restarted."""
    world.deploy("B")
    until(world, S.INSTALLING)
    host = world.machines["host-1"]
    while host.machine.reached.serial < world.enabled().serial:
        world.round()
    host.bad["B"] = (Revive, "killed: out of memory")
    host.machine.pools[0].live = 0
    until(world, S.PAUSED)
    world.ask("abort")
    world.settle()


@scenario(config={"strategy": "inplace"}, before="A")
def vanishes_after_its_turn(world: World) -> None:
    """In place, and a host is gone for good after it was done: nobody else is restarted before somebody looks."""
    world.deploy("B")
    until(world, S.INSTALLING)
    while world.machines["host-1"].machine.reached.serial < world.enabled().serial:
        world.round()
    world.round()
    world.remove_host("host-1")
    until(world, S.PAUSED)
    world.settle()


@scenario()
def most_hosts_replaced(world: World) -> None:
    """Most hosts are replaced while edges look away: new hosts are believed, so the next release goes on."""
    world.remove_host("host-2")
    world.remove_host("host-3")
    for name in ("host-4", "host-5"):
        world.add_host(name)
    world.rounds(12, idle=list(world.edges))
    world.deploy("C")
    world.settle()
