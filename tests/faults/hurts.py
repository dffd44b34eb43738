"""What can happen to an edge, each with what undoes it."""

from __future__ import annotations

import os
import signal

from edge import server
from tests.faults.fleet import Fleet


class Hurt:
    """``do`` it to an edge, ``undo`` it; afterwards the edge is as before, which the caller waits for."""

    name = ""
    #: Only the agent is concerned, and ZooKeeper hears nothing: its acks stay until its session ends.
    silent = False
    #: Lasts until it is undone.
    lasts = True
    #: Needs packets to be dropped.
    cuts = False

    def do(self, fleet: Fleet, edge: str) -> None:
        raise NotImplementedError

    def undo(self, fleet: Fleet, edge: str) -> None:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.name


class AgentDies(Hurt):
    name = "agent-dies"
    silent = True

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.strike(edge)

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.start(edge)


class AgentHangs(Hurt):
    name = "agent-hangs"
    silent = True

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.freeze(edge)

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.thaw(edge)


class CutOff(Hurt):
    name = "cut-off"
    silent = True
    cuts = True

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.partition.cut(edge)

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.partition.heal(edge)


class ChildDies(Hurt):
    """Its manager starts another at once."""

    name = "child-dies"
    lasts = False

    def do(self, fleet: Fleet, edge: str) -> None:
        before = fleet.child(edge)
        fleet.clients.hurt(edge)
        os.kill(before, signal.SIGKILL)
        fleet.until("another child runs", lambda: fleet.child(edge) not in (None, before))

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.green(edge)
        fleet.clients.healed(edge)


class ManagerDies(Hurt):
    name = "manager-dies"

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.clients.hurt(edge)
        fleet.strike(f"{edge}-server")
        fleet.until("its child ends too", lambda: fleet.health(edge) == 0)

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.start(f"{edge}-server")
        fleet.green(edge)
        fleet.clients.healed(edge)


class VarnishHangs(Hurt):
    name = "varnishd-hangs"

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.clients.hurt(edge)
        fleet.freeze(f"{edge}-server")

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.thaw(f"{edge}-server")
        fleet.green(edge)
        fleet.clients.healed(edge)


class MachineDies(Hurt):
    """Agent and varnishd; they come back with what is on the disk, the agent last."""

    name = "machine-dies"

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.clients.hurt(edge)
        fleet.strike(edge)
        fleet.strike(f"{edge}-server")

    def undo(self, fleet: Fleet, edge: str) -> None:
        fleet.start(f"{edge}-server")
        fleet.until("varnishd is back, and says that it is not to be used", lambda: fleet.health(edge) == 503)
        epoch = fleet.plan.epoch
        fleet.start(edge)
        fleet.green(edge)
        fleet.until("it has applied the plan", lambda: fleet.ack(edge).get("applied", 0) >= epoch)
        fleet.clients.healed(edge)


class CompilerFails(Hurt):
    """varnishd goes on with what it has, and can load nothing more."""

    name = "compiler-fails"
    #: What the compiler says.
    says = "no space left on device"

    def do(self, fleet: Fleet, edge: str) -> None:
        fleet.varnishadm(edge, "param.set", "cc_command", f'"echo {self.says}; exit 1"')

    def undo(self, fleet: Fleet, edge: str) -> None:
        if server.tcc_is_here():
            fleet.varnishadm(edge, "param.set", "cc_command", f'"{server.TCC}"')
        else:
            fleet.varnishadm(edge, "param.reset", "cc_command")


HURTS = (AgentDies(), AgentHangs(), CutOff(), ChildDies(), ManagerDies(), VarnishHangs())
