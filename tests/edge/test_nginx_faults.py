"""Agent, master and workers of a real nginx edge, killed and stopped at each phase of a change and under load.

As ``test_faults`` has it for Varnish: it ends on the latest plan, says so for its new incarnation only, is red until
then, and never answers with another version than the one that was asked for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

import pytest

from edge.nginx.control import Nginx, NginxTrouble
from fleet.model import Plan, Staged
from tests.conftest import eventually
from tests.edge.bed import Edge, World, slow_request
from tests.edge.steps import first
from tests.edge.test_faults import Loads, Watch, paused


@pytest.fixture
def edge(nginx_edge: Edge) -> Edge:
    return nginx_edge


def kill(edge: Edge, victim: str) -> None:
    match victim:
        case "agent":
            edge.kill("run")
        case "master":  # its workers are left behind, and end what they have at most
            edge.kill("server")
        case "workers":
            _signal(Nginx(edge.config).look().workers, signal.SIGKILL)


def bring_back(edge: Edge, victim: str) -> None:
    if victim in ("agent", "master"):
        edge.start("run" if victim == "agent" else "server")


def serving(edge: Edge) -> int | None:
    """The master whose workers answer; None where none does."""
    try:
        return Nginx(edge.config).look().master
    except NginxTrouble:
        return None


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


@pytest.mark.parametrize("victim", ["agent", "workers", "master"])
def test_wherever_it_is_killed_the_edge_ends_on_the_latest_plan(world: World, edge: Edge, victim: str) -> None:
    first(world, edge)
    world.host("B")
    epoch, before = 1, ""

    def write(default: str, back: str | None = None) -> None:
        nonlocal epoch
        epoch += 1
        staged = Staged(generation=epoch + 1, default=back) if back else None
        world.plan(Plan(epoch=epoch, generation=epoch, default=default, serving=("B", "A"), staged=staged))

    def killed() -> None:
        nonlocal before
        before = edge.ack().incarnation
        kill(edge, victim)

    def revived(default: str) -> None:
        """Whoever is new applies the latest plan, and a master that is new is not green before. (Workers that outlive
        theirs, or their agent, stay green: the fleet waits for this edge's ack, ADR 0010.)"""
        bring_back(edge, victim)
        if victim == "master":
            eventually("the new one answers", lambda: serving(edge) == edge.processes["server"].pid)
        with Watch(edge, default) as watch:
            eventually(
                f"the plan of epoch {epoch} is acknowledged",
                lambda: edge.acked(epoch) and (victim == "workers" or edge.ack().incarnation not in (before, "")),
                60,
            )
            eventually("green", lambda: edge.health() == 200, 60)
        assert victim != "master" or not watch.behind
        assert {edge.ask("/").version for _ in range(8)} == {default}
        eventually("nothing of an older plan is left", lambda: edge.ack().drained == epoch, 60)

    # before it knows of the plan
    with paused(edge):
        write("B")
        killed()
    revived("B")

    # in the midst of a reload: clients have been asked to close their connections, nothing is loaded yet
    reloads = Nginx(edge.config).look().marker.name
    write("A")
    eventually("it is about to reload", lambda: f"closing.{reloads}" in Nginx(edge.config).flags())
    killed()
    revived("A")

    # staged; then committed, perhaps not yet acknowledged
    write("A", back="B")
    eventually("it is staged", lambda: edge.acked(epoch))
    killed()
    revived("A")
    write("B", back="A")
    eventually("it is committed", lambda: edge.ask("/").version == "B")
    killed()
    revived("B")

    # settling: a slow request holds a worker of the older configuration
    with slow_request(edge, world.backends[0], x_deployment_id="A"):
        write("A")
        eventually("it is applied", lambda: edge.ack().applied == epoch, 60)
        assert edge.ack().drained < epoch
        killed()
    revived("A")


def test_killed_and_stopped_under_load_nothing_is_wrong_and_nothing_lost_where_a_worker_lives(
    world: World, edge: Edge
) -> None:
    first(world, edge)
    world.host("B")
    world.plan(Plan(epoch=2, generation=2, default="B", serving=("B", "A")))
    eventually("both are served", lambda: edge.acked(2) and edge.ack().healthy == {"A": 1, "B": 1}, 60)
    eventually("and nothing else", lambda: edge.ack().drained == 2, 60)
    look = Nginx(edge.config).look()
    with Loads(edge) as loads:
        loads.flow_without_the_agent()
        os.kill(look.master, signal.SIGSTOP)
        loads.flow()
        os.kill(look.master, signal.SIGCONT)
        assert not loads.bad
        assert Nginx(edge.config).look().workers == look.workers, "nobody was reloaded for it"

        # A worker that is stopped for a moment is late with what it has; the other one takes what comes.
        stopped = min(look.workers)
        os.kill(stopped, signal.SIGSTOP)
        assert {edge.ask("/api").version for _ in range(20)} == {"B"}
        os.kill(stopped, signal.SIGCONT)
        loads.flow()
        assert not loads.bad

        _signal(look.workers, signal.SIGKILL)
        loads.flow()
        edge.kill("server")
        edge.start("server")
        eventually("it is acknowledged again", lambda: edge.acked(2) and edge.health() == 200, 60)
        loads.flow()
    # What a killed worker had in hand is lost, and nothing listens for a moment; no answer is another version's.
    assert not [a for a in loads.wrong if a.status != 503]
