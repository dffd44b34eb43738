"""A rollout that is paused, aborted or taken back, at each of its steps."""

from __future__ import annotations

from fleet.model import RolloutState as S
from tests.proof.scenarios.telling import offered_unseen, requests_last, scenario, until
from tests.proof.world import Verb, World


@scenario()
def pause_and_resume(world: World) -> None:
    """Paused while hosts install: whoever has its turn finishes, nobody else begins; then it goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.ask("pause")
    world.rounds(12)
    world.ask("resume")
    world.settle()


def _hold(world: World, state: S) -> None:
    """A rollout of C that stays in ``state``."""
    if state is S.WITHDRAWING:
        requests_last(world)
    world.deploy("C", ramp=(10,) if state is S.RAMPING else (), hold=1000.0)
    if state is S.OFFERING:
        offered_unseen(world)
    until(world, state)
    if state is S.INSTALLING:
        world.rounds(3)


def _undo(verb: Verb, state: S) -> None:
    def play(world: World) -> None:
        _hold(world, state)
        world.ask(verb)
        world.rounds(3)
        world.edges["edge-1"].varnish.probes_stuck = False
        world.edges["edge-1"].varnish.end()
        world.settle()

    play.__doc__ = f"{verb.capitalize()} while {state.value}."
    play.__name__ = f"{verb}_{state.value}"
    scenario()(play)


for _state in (S.WITHDRAWING, S.INSTALLING, S.OFFERING, S.RAMPING):
    _undo("abort", _state)
    _undo("rollback", _state)


@scenario()
def abort_before_anybody_leads(world: World) -> None:
    """An abort is asked while no replica looks, and a job that knows nothing of it says resume: it is aborted."""
    _hold(world, S.RAMPING)
    world.ask("abort")
    world.ask("resume")
    world.settle()
    assert world.rollout().state is S.ABORTED  # type: ignore[union-attr]


@scenario()
def rollback_switched(world: World) -> None:
    """Rolled back in the moment of the switch, before every edge has it."""
    world.deploy("C")
    until(world, S.OFFERING)
    while (world.rollout().state) is S.OFFERING:  # type: ignore[union-attr]
        world.round(idle=["edge-2"] if world.edges["edge-2"].ack() else ())
    world.ask("rollback")
    world.settle()


@scenario()
def rollback_done(world: World) -> None:
    """Rolled back an hour after it was done: one commit of what is staged, no host moves; and forward again."""
    world.deploy("C")
    world.settle()
    world.now += 3600
    world.ask("rollback")
    world.settle()
    world.deploy("C")
    world.settle()
