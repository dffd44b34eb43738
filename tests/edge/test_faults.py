"""Agent, manager and child of a real edge, killed and stopped at each phase of a change and under load.

Wherever it happens, the edge ends on the latest plan, says so for its new incarnation only, and never answers with
another version than the one that was asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from edge import plan as planning
from fleet.model import Health, Plan, Staged
from tests.conftest import eventually
from tests.edge.bed import CONFIG, Answer, Edge, Load, World, slow_request
from tests.edge.steps import first

#: Hosts may be slow to answer a probe: a VCL stays loaded and not committed for that long.
PATIENT = CONFIG.model_copy(update={"health": Health(interval=2)})


def kill(edge: Edge, victim: str) -> None:
    match victim:
        case "agent":
            edge.kill("run")
        case "manager":  # and with it the child, which ends when its manager is gone
            edge.kill("server")
            eventually("the child is gone", lambda: edge.health() == 0)
        case "child":
            child = edge.look().child
            assert child
            os.kill(child, signal.SIGKILL)


def bring_back(edge: Edge, victim: str) -> None:
    """A child is brought back by its manager. Only, Varnish 7.1.1's manager ends with it where it dies while a VCL is
    being discarded (an assertion in ``mgt_vcl_discard``): see ``Edge.supervised``."""
    if victim in ("agent", "manager"):
        edge.start("run" if victim == "agent" else "server")


class Watch:
    """A load balancer's view: asks the health page, a request, and the page again."""

    def __init__(self, edge: Edge, latest: str) -> None:
        self._edge, self._latest = edge, latest
        self._stop = threading.Event()
        self.behind: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                green = self._edge.health() == 200
                version = self._edge.ask("/").version
                if green and self._edge.health() == 200 and version != self._latest:
                    self.behind.append(str(version))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


@contextlib.contextmanager
def paused(edge: Edge) -> Iterator[None]:
    """Nothing of what is written meanwhile reaches the agent."""
    edge.processes["run"].send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if "run" in edge.processes:
            edge.processes["run"].send_signal(signal.SIGCONT)


@pytest.mark.parametrize("victim", ["agent", "child", "manager"])
def test_wherever_it_is_killed_the_edge_ends_on_the_latest_plan(world: World, edge: Edge, victim: str) -> None:
    first(world, edge)
    world.configure(config=PATIENT)
    b = world.host("B")
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
        """A new incarnation applies the latest plan, and is not green before."""
        with Watch(edge, default) as watch:
            bring_back(edge, victim)
            eventually(
                f"the plan of epoch {epoch} is acknowledged anew",
                lambda: (
                    edge.supervised()
                    and edge.acked(epoch)
                    and edge.ack().incarnation not in (before, "")
                    and edge.health() == 200
                ),
                60,
            )
        # What an edge served before may be green again with the child: the fleet waits for its new ack (ADR 0010).
        assert victim != "manager" or not watch.behind
        assert edge.ask("/").version == default
        eventually("nothing of an older plan is left", lambda: edge.ack().drained == epoch, 60)

    # before it knows of the plan
    with paused(edge):
        write("B")
        killed()
    revived("B")

    # loaded, not committed: B's host keeps the probes of the new VCL waiting
    b.hangs.set()
    known = set(planning.loaded(edge.look()))
    write("A")
    eventually("it is loaded", lambda: set(planning.loaded(edge.look())) - known)
    killed()
    b.hangs.clear()
    revived("A")

    # staged; then committed, perhaps not yet acknowledged
    write("A", back="B")
    eventually("it is staged", lambda: edge.acked(epoch))
    killed()
    revived("A")
    points = planning.targets(edge.look())
    write("B", back="A")
    eventually("it is committed", lambda: planning.targets(edge.look()) != points)
    killed()
    revived("B")

    # settling: a slow request holds the old VCL
    with slow_request(edge, world.backends[0], x_deployment_id="A"):
        write("A")
        eventually("it is applied", lambda: edge.ack().applied == epoch)
        assert edge.ack().drained < epoch
        killed()
    revived("A")


class Loads:
    """Requests with a pin to A, to B, and with none, while B is the default; where the agent comes and goes first."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.all = (
            Load(edge, answered_by("A"), x_deployment_id="A"),
            Load(edge, answered_by("B"), x_deployment_id="B"),
            Load(edge, answered_by("B")),
        )

    def __enter__(self) -> Loads:
        for load in self.all:
            load.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for load in self.all:
            load.__exit__()

    @property
    def bad(self) -> list[object]:
        return [bad for load in self.all for bad in load.bad]

    @property
    def wrong(self) -> list[Answer]:
        return [answer for load in self.all for answer in load.wrong]

    def flow(self) -> None:
        for load in self.all:
            load.flows()

    def flow_without_the_agent(self) -> None:
        """It is killed, comes back, and stands still for a while."""
        self.flow()
        self._edge.kill("run")
        self.flow()
        self._edge.start("run")
        eventually("the agent is back", lambda: "/none" not in self._edge.ack().incarnation and self._edge.acked(2), 60)
        with paused(self._edge):
            self.flow()


def answered_by(version: str) -> Callable[[Answer], bool]:
    return lambda a: a.status == 200 and a.build == version and a.version == version


def test_killed_and_stopped_under_load_nothing_is_wrong_and_nothing_lost_where_the_child_lives(
    world: World, edge: Edge
) -> None:
    first(world, edge)
    world.host("B")
    world.plan(Plan(epoch=2, generation=2, default="B", serving=("B", "A")))
    eventually("both are served", lambda: edge.acked(2) and edge.ack().healthy == {"A": 1, "B": 1})
    manager, child = edge.look().manager, edge.look().child
    assert child
    with Loads(edge) as loads:
        loads.flow_without_the_agent()
        os.kill(manager, signal.SIGSTOP)
        loads.flow()
        eventually("the ack is void", lambda: edge.ack().applied == 0)
        loads.flow()
        os.kill(manager, signal.SIGCONT)
        eventually("it is acknowledged again", lambda: edge.acked(2))
        assert not loads.bad
        assert edge.look().child == child

        # Varnish 7.1 panics where that interrupts a read (v1f_read): what the child had in hand is lost, as by a kill.
        os.kill(child, signal.SIGSTOP)
        os.kill(child, signal.SIGCONT)
        loads.flow()
        child = edge.look().child
        if child:
            os.kill(child, signal.SIGKILL)
        loads.flow()
        edge.kill("server")
        edge.start("server")
        eventually("it is acknowledged again", lambda: edge.acked(2) and edge.health() == 200, 60)
        loads.flow()
    # Until a fresh child has probed, hosts may count as sick: an error, or the default and the client is told.
    said = [a for a in loads.wrong if a.status != 503 and a.headers["x-deployment-status"] != "retired"]
    assert not said
