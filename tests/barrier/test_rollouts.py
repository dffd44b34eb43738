"""Whole rollouts: a real controller and a real ZooKeeper, thin edges and hosts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from barrier.routes_rollouts import waiting
from barrier.store import Refused, roster
from fleet import paths
from fleet.model import RolloutState
from fleet.zk import Check, Conflict, Set, ZooKeeper
from tests.barrier.conftest import ANN, Fleet
from tests.barrier.fleet import Host
from tests.conftest import eventually


def states(fleet: Fleet, number: int) -> list[str]:
    return list(dict.fromkeys(str(e.state) for e in fleet.get(number).history))


def test_the_first_the_second_and_the_third_release(small: Fleet) -> None:
    first = small.deploy("A")
    assert states(small, first.number) == ["installing", "offering", "switched"]
    plan = small.store.plan("shop")
    assert (plan.default, plan.serving, plan.staged, plan.generation) == ("A", ("A",), None, 1)

    second = small.deploy("B")
    assert states(small, second.number) == ["withdrawing", "installing", "offering", "switched"]
    plan = small.store.plan("shop")
    assert (plan.default, plan.serving, plan.generation) == ("B", ("B", "A"), 2)
    assert plan.staged is not None
    assert (plan.staged.default, plan.staged.generation) == ("A", 3)

    third = small.deploy("C")
    plan = small.store.plan("shop")
    assert (plan.default, plan.serving, plan.retired) == ("C", ("C", "B"), ("A",))
    assert (third.previous, third.withdrawn, third.served) == ("B", ("A",), ("B", "A"))
    assert small.store.active("shop") is None
    assert [r.number for r in small.store.rollouts("shop", 10)] == [3, 2, 1]
    eventually("all turns to be taken back", lambda: not small.store.zk.children(paths.turns("shop"), watch=False))


def test_no_host_stops_what_an_edge_may_still_use(fleet: Fleet) -> None:
    """I3, I6: judged by the edges' acks at the moment of each stop."""
    fleet.configure()
    edges = [fleet.edge("edge-1"), fleet.edge("edge-2")]
    wrong: list[str] = []

    def check(host: object, builds: set[str]) -> None:
        for edge in edges:
            plan = edge.plans[-1]
            if builds & {*plan.serving, plan.default}:
                wrong.append(f"{builds} stopped while {edge.name} is at {plan}")

    for name in ("host-1", "host-2", "host-3"):
        fleet.host(name, check=check)
    fleet.replica()
    for build in "ABCDE":
        fleet.deploy(build)
    assert not wrong


def test_one_host_at_a_time(small: Fleet) -> None:
    small.deploy("A")
    overlapping: list[int] = []

    def check(host: object, builds: set[str]) -> None:
        overlapping.append(len(at_work(small)))

    for thread in small.threads:
        if hasattr(thread, "check"):
            thread.check = check
    small.deploy("B")
    small.deploy("C")
    assert overlapping == [1, 1, 1]


def test_a_rollback_is_one_commit_of_what_is_staged(small: Fleet) -> None:
    small.deploy("A")
    number = small.deploy("B").number
    before = small.store.plan("shop")
    small.ask(number, "rollback")
    small.until(number, "rolled_back", done=True)
    plan = small.store.plan("shop")
    assert (plan.default, plan.epoch, plan.generation) == ("A", before.epoch + 1, before.generation + 1)
    assert plan.serving == ("B", "A")
    assert plan.staged is not None
    assert plan.staged.default == "B"
    # ... and forward again, with nothing to install
    again = small.deploy("B")
    assert states(small, again.number) == ["offering", "switched"]
    assert small.store.plan("shop").default == "B"


def test_a_release_of_the_default_is_done_at_once(small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    epoch = small.store.plan("shop").epoch
    number = small.deploy("B").number
    assert small.store.plan("shop").epoch == epoch
    small.ask(number, "rollback")
    small.until(number, "rolled_back", done=True)
    assert small.store.plan("shop").default == "A"


def test_a_failing_host_pauses_and_an_abort_puts_everything_back(small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    bad = next(t for t in small.threads if t.name == "host-2")
    bad.bad = {"C": "start: it exits with status 1"}  # type: ignore[attr-defined]
    number = small.begin("C").number
    paused = small.until(number, "paused")
    assert paused.failures == {"host-2": "start: it exits with status 1"}
    assert small.store.plan("shop").serving == ("B",)
    small.ask(number, "abort")
    small.until(number, "aborted", done=True)
    plan = small.store.plan("shop")
    assert (plan.default, plan.serving) == ("B", ("B", "A"))
    for thread in small.threads:
        if hasattr(thread, "slots"):
            assert set(thread.slots) == {"A", "B"}


def test_a_failed_host_that_was_mended_is_tried_again_on_resume(small: Fleet) -> None:
    small.deploy("A")
    bad = next(t for t in small.threads if t.name == "host-1")
    bad.bad = {"B": "disk full"}  # type: ignore[attr-defined]
    number = small.begin("B").number
    small.until(number, "paused")
    bad.bad = {}  # type: ignore[attr-defined]
    small.ask(number, "resume")
    assert small.until(number, "switched", done=True).failures == {}


@pytest.mark.parametrize("at", ["withdrawing", "offering"])
def test_abort_puts_back_what_was_served(fleet: Fleet, at: str) -> None:
    fleet.configure()
    edge = fleet.edge("edge-1")
    fleet.host("host-1")
    fleet.replica()
    fleet.deploy("A")
    fleet.deploy("B")
    if at == "withdrawing":
        edge.drains = False
    if at == "offering":
        edge.sees = lambda version, n: 0 if version == "C" else n
    number = fleet.begin("C", ramp=[10], hold=1000).number
    fleet.until(number, at)
    edge.drains = True
    edge.wake()
    fleet.ask(number, "abort")
    fleet.until(number, "aborted", done=True)
    plan = fleet.store.plan("shop")
    assert (plan.default, plan.serving, plan.ramp) == ("B", ("B", "A"), None)
    assert plan.staged is not None
    assert plan.staged.default == "A"
    assert fleet.store.active("shop") is None


def test_abort_of_a_ramp_brings_only_new_pages_back_and_the_next_release_goes_on_from_there(small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    number = small.begin("C", ramp=[10], hold=1000).number
    small.until(number, "ramping")
    small.ask(number, "abort")
    small.until(number, "aborted", done=True)
    plan = small.store.plan("shop")
    assert (plan.default, plan.serving, plan.ramp) == ("B", ("C", "B"), None)
    small.deploy("D")
    assert small.store.plan("shop").serving == ("D", "B")


def test_a_ramp_goes_step_by_step_on_resume_and_by_its_hold(small: Fleet) -> None:
    small.deploy("A")
    number = small.begin("B", ramp=[1, 10, 100], hold=1000).number
    small.until(number, "ramping")
    plan = small.store.plan("shop")
    assert plan.ramp is not None
    assert (plan.default, plan.ramp.version, plan.ramp.percent) == ("A", "B", 1)
    small.ask(number, "resume")
    eventually("10 %", lambda: (ramp := small.store.plan("shop").ramp) is not None and ramp.percent == 10)
    small.ask(number, "pause")
    small.until(number, "paused")
    small.ask(number, "resume")
    small.until(number, "ramping")
    small.ask(number, "resume")
    small.until(number, "switched", done=True)
    assert small.store.plan("shop").ramp is None
    small.deploy("C", ramp=[50], hold=0)
    assert "ramping" in states(small, 3)


def test_a_ramp_held_by_hand_waits_for_a_verdict(small: Fleet) -> None:
    small.deploy("A")
    number = small.begin("B", ramp=[1, 50], hold="hand").number
    small.until(number, "ramping")
    controller = small.replicas[0].controller
    controller._monotonic = lambda: 1e9  # type: ignore[method-assign]  # a year
    small.replicas[0].wake()
    small.ask(number, "resume")
    eventually("50 %", lambda: (ramp := small.store.plan("shop").ramp) is not None and ramp.percent == 50)
    assert small.get(number).state == "ramping"
    small.ask(number, "resume")
    small.until(number, "switched", done=True)


def test_an_abort_that_no_leader_has_seen_yet_is_not_lost_to_a_later_resume(small: Fleet) -> None:
    small.deploy("A")
    number = small.begin("B", ramp=[10], hold="hand").number
    small.until(number, "ramping")
    small.replicas.pop().kill()
    for verb in ("resume", "pause", "abort"):  # each may take the place of the one before
        small.ask(number, verb)
    for verb in ("pause", "resume"):
        with pytest.raises(Refused, match=rf"ann has asked to abort rollout {number}: wait until that is done"):
            small.ask(number, verb)
    small.replica("barrier-2")
    small.until(number, "aborted", done=True)
    assert small.store.plan("shop").default == "A"


def test_a_stalled_edge_is_named_and_an_eviction_lets_the_rollout_go_on(small: Fleet) -> None:
    small.deploy("A")
    edge = next(t for t in small.threads if t.name == "edge-2")
    edge.stop()
    small.threads.remove(edge)
    number = small.begin("B").number
    eventually("the stall to be said", lambda: small.get(number).stalled)
    assert small.get(number).stalled == ("edge-2: no ack (its agent is away)",)
    assert roster.evict(small.store, "edge-2", ANN)
    assert small.until(number, "switched", done=True).stalled == ()


def test_the_lock_is_held_until_every_edge_has_switched(small: Fleet) -> None:
    small.deploy("A")
    edge = next(t for t in small.threads if t.name == "edge-1")
    epoch = small.store.plan("shop").epoch
    edge.hold_at = epoch + 1  # type: ignore[attr-defined]  # the offer, and not the switch
    number = small.begin("B").number
    small.until(number, "switched", done=False)
    assert small.store.active("shop") == number
    eventually("the stall to be said", lambda: small.get(number).stalled)
    assert small.get(number).stalled == (f"edge-1: epoch {epoch + 1} of {epoch + 2}",)
    small.ask(number, "rollback")
    edge.hold_at = None  # type: ignore[attr-defined]
    edge.wake()
    small.until(number, "rolled_back", done=True)


def test_the_successor_finishes_what_a_killed_leader_began(fleet: Fleet) -> None:
    fleet.configure()
    edge = fleet.edge("edge-1")
    for name in ("host-1", "host-2"):
        fleet.host(name)
    replicas = [fleet.replica("barrier-1")]
    eventually("barrier-1 to lead", lambda: fleet.store.zk.children(paths.CANDIDATES, watch=False))
    replicas.append(fleet.replica("barrier-2"))
    fleet.deploy("A")
    fleet.deploy("B")
    edge.drains = False
    number = fleet.begin("C").number
    fleet.until(number, "withdrawing")
    replicas[0].kill()
    fleet.replicas.remove(replicas[0])
    edge.drains = True
    edge.wake()
    fleet.until(number, "switched", done=True)


def test_a_deposed_leaders_write_fails(fleet: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    """I5."""
    fleet.configure()
    first = fleet.replica("barrier-1")
    zk = connect()
    eventually("barrier-1 to lead", lambda: zk.get(paths.FENCE, watch=False))
    fence = zk.get(paths.FENCE, watch=False)
    plan = zk.get(paths.plan("shop"), watch=False)
    assert fence is not None
    assert plan is not None
    first.kill()
    fleet.replicas.clear()
    fleet.replica("barrier-2")
    eventually("the fence to be raised", lambda: (n := zk.get(paths.FENCE, watch=False)) and n.version > fence.version)
    with pytest.raises(Conflict, match=paths.FENCE):
        zk.commit([Check(paths.FENCE, fence.version), Set(paths.plan("shop"), plan.data, plan.version)])


def test_in_place_is_one_mixed_pool(fleet: Fleet) -> None:
    fleet.configure(strategy="inplace", ports=[8000])
    edge = fleet.edge("edge-1")
    for name in ("host-1", "host-2"):
        fleet.host(name, slots=1)
    fleet.replica()
    fleet.deploy("A")
    number = fleet.deploy("B").number
    assert [(p.mode, p.serving, p.default) for p in edge.plans if p.epoch > 3] == [
        ("mixed", ("B", "A"), "A"),
        ("mixed", ("B",), "B"),
    ]
    with pytest.raises(Exception, match="no longer running beside it"):
        fleet.ask(number, "rollback")
    # a failing one is undone in place
    for thread in fleet.threads:
        if thread.name == "host-2":
            thread.bad = {"C": "boom"}  # type: ignore[attr-defined]
    number = fleet.begin("C").number
    fleet.until(number, "paused")
    fleet.ask(number, "abort")
    fleet.until(number, "aborted", done=True)
    assert fleet.store.plan("shop").serving == ("B",)
    # and the same service, pinned from now on
    fleet.configure()
    for thread in fleet.threads:
        if hasattr(thread, "slots"):
            thread.slots.append(None)
    fleet.deploy("D")
    plan = fleet.store.plan("shop")
    assert (plan.mode, plan.serving, plan.default) == ("pinned", ("D", "B"), "D")


def test_a_host_that_joins_later_gets_its_turn(small: Fleet) -> None:
    small.deploy("A")
    host = small.host("host-9")
    eventually("host-9 to run A", lambda: "A" in host.slots)


def test_a_plan_changed_behind_its_back_ends_the_rollout(small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    edge = next(t for t in small.threads if t.name == "edge-1")
    edge.drains = False  # type: ignore[attr-defined]
    number = small.begin("C").number
    small.until(number, "withdrawing")
    plan = small.store.plan("shop")
    node = small.store.zk.get(paths.plan("shop"), watch=False)
    assert node is not None
    other = plan.model_copy(update={"epoch": plan.epoch + 1, "default": None})
    small.store.zk.set(paths.plan("shop"), other.encode(), node.version)
    failed = small.until(number, "failed", done=True)
    assert "the default is nothing where it should be B" in failed.history[-1].text
    assert failed.state is RolloutState.FAILED


def test_zookeeper_away_moves_nothing_and_back_goes_on(small: Fleet, zookeeper_server: object) -> None:
    """I12."""
    small.deploy("A")
    small.deploy("B")
    edge = next(t for t in small.threads if t.name == "edge-1")
    edge.drains = False  # type: ignore[attr-defined]
    number = small.begin("C").number
    small.until(number, "withdrawing")
    zookeeper_server.stop()  # type: ignore[attr-defined]
    edge.drains = True  # type: ignore[attr-defined]
    zookeeper_server.start()  # type: ignore[attr-defined]
    edge.wake()
    eventually("ZooKeeper to be used again", lambda: small.store.zk.connected, 30)
    small.until(number, "switched", done=True)


def turns_given(fleet: Fleet) -> set[str]:
    return set(fleet.store.zk.children(paths.turns("shop"), watch=False))


def at_work(fleet: Fleet) -> set[str]:
    """Hosts in their turn that are not done with it."""
    snap = fleet.store.read("shop")
    return {n for n in snap.turns if n not in snap.hosts or snap.hosts[n].serial < snap.turns[n].serial}


def test_how_many_may_at_once_is_changed_in_the_middle_of_a_wave(fleet: Fleet) -> None:
    fleet.configure(waves={"concurrency": 1})
    fleet.edge("edge-1")
    hosts = [fleet.host(f"host-{n}") for n in range(1, 7)]
    fleet.replica()
    fleet.deploy("A")
    for host in hosts:
        host.holds = True
    number = fleet.begin("B").number
    eventually("one has its turn", lambda: at_work(fleet) == {"host-1"})
    fleet.configure(waves={"percent": 50})
    eventually("half of them have", lambda: at_work(fleet) == {"host-1", "host-2", "host-3"})
    fleet.configure(waves={"concurrency": 4})
    eventually("four have", lambda: len(at_work(fleet)) == 4)
    fleet.configure(waves={"concurrency": 1})
    for done, host in enumerate(hosts[:3], 1):  # nobody's turn is cut short, and nobody gets a new one
        host.holds = False
        host.wake()
        eventually("it is done with it", lambda n=4 - done: len(at_work(fleet)) == n)
    assert at_work(fleet) == {"host-4"}
    hosts[3].holds = False
    hosts[3].wake()
    eventually("one after the other again", lambda: at_work(fleet) == {"host-5"})
    for host in hosts:
        host.holds = False
        host.wake()
    fleet.until(number, "switched", done=True)
    eventually("no turns are left", lambda: not turns_given(fleet))


def test_a_release_that_ends_its_hosts_after_their_turn_does_not_walk_through_the_fleet(fleet: Fleet) -> None:
    """In place: what a host that is done has lost again counts as much as what one in its turn gave up."""
    fleet.configure(strategy="inplace", ports=[8000], waves={"concurrency": 1})
    fleet.edge("edge-1")
    hosts = [fleet.host(f"host-{n}", slots=1) for n in (1, 2, 3)]
    fleet.replica()
    fleet.deploy("A")
    hosts[1].holds = True
    number = fleet.begin("B").number
    eventually("the second is at work", lambda: at_work(fleet) == {"host-2"})
    hosts[0].live = 0
    hosts[0].wake()
    eventually("it is seen", lambda: "host-1" in fleet.store.read("shop").down)
    hosts[1].holds = False
    hosts[1].wake()
    eventually("the second is done", lambda: at_work(fleet) == set())
    snap = fleet.store.read("shop")
    assert snap.rollout is not None
    waits = {m.who: m.why for m in waiting(snap, snap.rollout)}
    assert waits == {"host-1": "does not serve any more what it had started", "host-3": "waits for its turn"}
    assert "host-3" not in turns_given(fleet)
    hosts[0].live = 2
    hosts[0].wake()
    fleet.until(number, "switched", done=True)


def test_a_host_that_leaves_before_its_turn_is_not_waited_for(small: Fleet) -> None:
    small.deploy("A")
    hosts = [t for t in small.threads if isinstance(t, Host)]
    hosts[0].holds = True
    number = small.begin("B").number
    eventually("the first has its turn", lambda: turns_given(small) == {"host-1"})
    hosts[2].stop()  # scaled in, while it waits
    small.threads.remove(hosts[2])
    hosts[0].holds = False
    hosts[0].wake()
    small.until(number, "switched", done=True)
    assert sorted(small.store.read("shop").hosts) == ["host-1", "host-2"]
