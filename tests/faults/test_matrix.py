"""The fault matrix, on a real fleet under load: each step of a rollout, and what can happen to the fleet at it.

A rollout is held at a step by what would hold it in life: an edge that is hurt (withdraw, offer), an answer that does
not end (the first ack), a post-install that takes its time (install), a ramp (the second ack, the switch).
``docs/faults.md`` is the matrix; PINRAIL_FAULTS=all runs every kind of hurt at every step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest

from fleet import paths
from fleet.model import RolloutState
from fleet.zk import Check, Conflict, Set
from pipeline.client import BarrierError
from tests.faults.fleet import PATIENCE, SESSION, Fleet
from tests.faults.hurts import (
    HURTS,
    AgentDies,
    AgentHangs,
    ChildDies,
    CompilerFails,
    CutOff,
    Hurt,
    MachineDies,
    ManagerDies,
    VarnishHangs,
)
from tests.faults.rollout import SERVICE, Rollout, builds, pools

pytestmark = pytest.mark.timeout(900)

S = RolloutState
STEPS = ("withdraw", "ack", "install", "offer", "warm", "switch")
HURT, WELL = "edge-2", "edge-1"
HOSTS = ("host-1", "host-2", "host-3")
REPLICAS = ("barrier-1", "barrier-2")
ALL = os.environ.get("PINRAIL_FAULTS") == "all"


def everywhere(hurt: Hurt) -> dict[str, Hurt]:
    return dict.fromkeys(STEPS, hurt)


# In CI each cell of the matrix once, and each kind of hurt at least once.
CHOSEN = {
    "dies-or-hangs": {
        "withdraw": AgentDies(),
        "ack": ChildDies(),
        "install": ManagerDies(),
        "offer": AgentHangs(),
        "warm": VarnishHangs(),
        "switch": AgentDies(),
    },
    "cut-off": everywhere(CutOff()),
    "returns-stale": everywhere(MachineDies()),
}
EVERY = {h.name: everywhere(h) for h in (*HURTS, MachineDies())}


@pytest.mark.parametrize("column", EVERY if ALL else CHOSEN)
def test_an_edge_is_hurt_at_every_step(fleet: Fleet, column: str) -> None:
    by = (EVERY if ALL else CHOSEN)[column]
    if any(h.cuts for h in by.values()) and fleet.partition.why_not:
        pytest.skip(f"no partition here: {fleet.partition.why_not}")
    with fleet.clients.unharmed():
        rollout = _withdraw_and_ack(fleet, by)
        _install_and_offer(fleet, rollout, by)
        _warm_and_switch(fleet, rollout, by)
        rollout.over(S.SWITCHED)


def _withdraw_and_ack(fleet: Fleet, by: Mapping[str, Hurt]) -> Rollout:
    with fleet.stream(WELL, fleet.plan.serving[-1]):
        with fleet.at("withdraw", by["withdraw"], HURT) as hurt:
            rollout = fleet.deploy(hold=True)
            if hurt.lasts:
                fleet.until("it waits for the edge that is hurt", lambda: HURT in rollout.missing())
            assert rollout.now().state is S.WITHDRAWING
            if hurt.silent:
                assert fleet.ask(HURT, rollout.oldest)[0] == rollout.oldest, "it is there, so it may still be served"
            untouched(fleet, rollout)
        assert "requests left" in rollout.waits(S.WITHDRAWING, WELL)[WELL]
        assert fleet.ask(HURT, rollout.oldest) == (rollout.default, "retired")
        with fleet.at("ack", by["ack"], HURT):
            acked_no_more(fleet, rollout, by["ack"])
            assert rollout.now().state is S.WITHDRAWING
            untouched(fleet, rollout)
        rollout.waits(S.WITHDRAWING, WELL)
        fleet.close_gate()
    return rollout


def _install_and_offer(fleet: Fleet, rollout: Rollout, by: Mapping[str, Hurt]) -> None:
    assert set(rollout.waits(S.INSTALLING, *HOSTS)) == set(HOSTS)
    with fleet.at("install", by["install"], HURT) as hurt:
        if hurt.lasts:
            fleet.until("its ack is void", lambda: fleet.ack(HURT).get("applied", 0) < fleet.plan.epoch)
        assert rollout.now().state is S.INSTALLING
        assert HURT not in rollout.missing(), "it has acknowledged; hosts do not wait for it"
    fleet.until("it has applied the plan again", lambda: fleet.ack(HURT).get("applied") == fleet.plan.epoch)
    assert fleet.ask(HURT, rollout.oldest) == (rollout.default, "retired"), "what was withdrawn is not brought back"
    with fleet.at("offer", by["offer"], HURT) as hurt:
        fleet.open_gate()
        if hurt.lasts:
            rollout.waits(S.OFFERING, HURT)
            assert fleet.plan.default == rollout.default
            if hurt.silent:
                assert fleet.ask(HURT)[0] == rollout.default
                assert fleet.ask(HURT, rollout.build) == (rollout.default, "retired"), "it does not know the offer yet"


def _warm_and_switch(fleet: Fleet, rollout: Rollout, by: Mapping[str, Hurt]) -> None:
    rollout.waits(S.RAMPING, "ramp")
    with fleet.at("warm", by["warm"], HURT):
        acked_no_more(fleet, rollout, by["warm"])
        assert rollout.now().state is S.RAMPING
        assert fleet.plan.default == rollout.default
    rollout.waits(S.RAMPING, "ramp")
    with fleet.at("switch", by["switch"], HURT) as hurt:
        rollout.ask("resume")
        if not hurt.lasts:
            return
        fleet.until("it waits for the edge that is hurt", lambda: HURT in rollout.missing())
        switched = rollout.now().state is S.SWITCHED
        assert switched or rollout.now().state is S.RAMPING
        assert fleet.plan.default == (rollout.build if switched else rollout.default)
        if hurt.silent:
            assert fleet.ask(HURT)[0] == rollout.default, "the one that misses the switch stays where it is"
        if switched:
            fleet.until("the other edge switches", lambda: fleet.ask(WELL)[0] == rollout.build)
        with pytest.raises(BarrierError) as refused:
            fleet.api.deploy(SERVICE, rollout.oldest)
        assert refused.value.status == 409, "the next rollout waits until this one is over"
        assert f"rollout {rollout.number}" in str(refused.value)


def acked_no_more(fleet: Fleet, rollout: Rollout, hurt: Hurt) -> None:
    """What the edge had said before does not count any more; one that is there again at once says it anew."""
    if hurt.lasts:
        fleet.until("it is waited for again", lambda: HURT in rollout.missing())
    else:
        fleet.until("it speaks for another child", lambda: fleet.ack(HURT).get("incarnation") not in (None, fleet.said))


def untouched(fleet: Fleet, rollout: Rollout) -> None:
    """No host has let go of what was served when the rollout began."""
    assert all(builds(h) == set(rollout.before.serving) for h in fleet.hosts().values())
    assert pools(fleet) == rollout.pools


def test_a_compiler_fails_at_the_offer(fleet: Fleet) -> None:
    """The edge says so in the compiler's words and serves what it did; the default stays until it can load again."""
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.INSTALLING, *HOSTS)
        with fleet.at("offer", CompilerFails(), HURT):
            fleet.open_gate()
            fleet.until("it says why", lambda: CompilerFails.says in rollout.waits(S.OFFERING, HURT)[HURT])
            assert CompilerFails.says in fleet.ack(HURT)["error"]
            assert fleet.health(HURT) == 200
            assert fleet.ask(HURT)[0] == rollout.default
            assert fleet.ask(HURT, rollout.build) == (rollout.default, "retired"), "it does not know the offer"
            assert fleet.ask(WELL, rollout.build)[0] == rollout.build, "the other edge offers it"
            assert (fleet.plan.default, fleet.plan.ramp) == (rollout.default, None)
        rollout.waits(S.RAMPING, "ramp")
        rollout.ask("resume")
        rollout.over(S.SWITCHED)


def test_an_evicted_edge_returns_with_what_it_had(fleet: Fleet) -> None:
    """Its machine dies while hosts install; the operator takes it off, and all goes on. Then it is back."""
    machine = MachineDies()
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.INSTALLING, *HOSTS)
        machine.do(fleet, HURT)
        fleet.open_gate()
        rollout.waits(S.OFFERING, HURT)
        fleet.until("it is evicted", lambda: fleet.api.evict(HURT, "its machine is gone"))
        rollout.waits(S.RAMPING, "ramp")
        rollout.ask("resume")
        fleet.until("it is over", lambda: rollout.now().over)
        fleet.start(f"{HURT}-server")
        fleet.until("varnishd is back", lambda: fleet.health(HURT) == 503)
        # What it has on its disk is two epochs old: that version's slot holds another one now.
        assert fleet.ask(HURT, rollout.oldest)[0] == rollout.default
        assert fleet.health(HURT) == 503
        assert HURT not in fleet.rostered()
        fleet.start(HURT)
        fleet.green(HURT)
        assert fleet.ask(HURT)[0] == rollout.build, "green is said for the present plan"
        assert HURT in fleet.rostered()
        fleet.clients.healed(HURT)
        rollout.over(S.SWITCHED)


# -- the operator takes it back ---------------------------------------------------------------------------------------


def test_rolled_back_at_withdraw(fleet: Fleet) -> None:
    """An edge has not applied the withdrawal yet: what was withdrawn is offered again."""
    with fleet.clients.unharmed():
        with fleet.at("withdraw", AgentHangs(), HURT):
            rollout = fleet.deploy()
            fleet.until("it waits for the edge", lambda: HURT in rollout.missing())
            rollout.ask("rollback")
            rollout.waits(S.ABORTING, HURT)
        rollout.over(S.ABORTED)
        untouched(fleet, rollout)


def test_rolled_back_at_ack(fleet: Fleet) -> None:
    """A request to the withdrawn version is still under way, and goes on."""
    with fleet.clients.unharmed(), fleet.stream(WELL, fleet.plan.serving[-1]):
        rollout = fleet.deploy()
        rollout.waits(S.WITHDRAWING, WELL)
        rollout.ask("rollback")
        rollout.over(S.ABORTED)
        untouched(fleet, rollout)


def test_rolled_back_at_install(fleet: Fleet) -> None:
    """One host has the new version already, the others are at it: in the end all have the old one again."""
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy()
        rollout.waits(S.INSTALLING, *HOSTS)
        fleet.open_gate("host-1")
        rollout.waits(S.INSTALLING, "host-2", "host-3")
        rollout.ask("rollback")
        fleet.until("the post-install is given up", lambda: rollout.now().state is S.ABORTING)
        fleet.open_gate()
        rollout.over(S.ABORTED)
        assert rollout.build not in fleet.plan.serving


def test_rolled_back_at_offer(fleet: Fleet) -> None:
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy()
        rollout.waits(S.INSTALLING, *HOSTS)
        with fleet.at("offer", AgentHangs(), HURT):
            fleet.open_gate()
            rollout.waits(S.OFFERING, HURT)
            rollout.ask("rollback")
            rollout.waits(S.ABORTING, HURT)
        rollout.over(S.ABORTED)


def test_rolled_back_at_warm(fleet: Fleet) -> None:
    """During a ramp: new pages come from the default again, those that came by the ramp stay, no host does anything."""
    with fleet.clients.unharmed():
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.RAMPING, "ramp")
        installed = pools(fleet)
        rollout.ask("rollback")
        rollout.over(S.ABORTED, ramped=True)
        assert (fleet.plan.serving, fleet.plan.ramp) == ((rollout.build, rollout.default), None)
        assert pools(fleet) == installed


def test_rolled_back_at_switch(fleet: Fleet) -> None:
    """One edge has not even seen the switch: it stays, the other goes back at once, and no host does anything."""
    with fleet.clients.unharmed():
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.RAMPING, "ramp")
        with fleet.at("switch", AgentHangs(), HURT):
            rollout.ask("resume")
            rollout.waits(S.SWITCHED, HURT)
            installed = pools(fleet)
            fleet.until("the other edge switches", lambda: fleet.ask(WELL)[0] == rollout.build)
            rollout.ask("rollback")
            fleet.until("the other edge is back", lambda: fleet.ask(WELL)[0] == rollout.default)
            assert fleet.ask(HURT)[0] == rollout.default
        rollout.over(S.ROLLED_BACK)
        assert pools(fleet) == installed


# -- the controller ---------------------------------------------------------------------------------------------------


def crash(fleet: Fleet) -> None:
    """The leader, as by the kernel; until another leads."""
    leader = fleet.leader()
    fleet.kill(leader)
    fleet.until("another leads", lambda: fleet.leader() != leader)


def test_the_leader_is_killed_at_every_step(fleet: Fleet) -> None:
    with fleet.clients.unharmed():
        with fleet.stream(WELL, fleet.plan.serving[-1]):
            with fleet.at("withdraw", AgentHangs(), HURT):
                rollout = fleet.deploy(hold=True)
                fleet.until("it waits for the edge", lambda: HURT in rollout.missing())
                crash(fleet)
                untouched(fleet, rollout)
            rollout.waits(S.WITHDRAWING, WELL)
            crash(fleet)
            rollout.waits(S.WITHDRAWING, WELL)
            untouched(fleet, rollout)
            fleet.close_gate()
        rollout.waits(S.INSTALLING, *HOSTS)
        crash(fleet)
        rollout.waits(S.INSTALLING, *HOSTS)
        with fleet.at("offer", AgentHangs(), HURT):
            fleet.open_gate()
            rollout.waits(S.OFFERING, HURT)
            crash(fleet)
            rollout.waits(S.OFFERING, HURT)
        rollout.waits(S.RAMPING, "ramp")
        crash(fleet)
        rollout.waits(S.RAMPING, "ramp")
        with fleet.at("switch", AgentHangs(), HURT):
            rollout.ask("resume")
            rollout.waits(S.SWITCHED, HURT)
            crash(fleet)
            rollout.waits(S.SWITCHED, HURT)
        rollout.over(S.SWITCHED)


def test_a_leader_that_sleeps_over_its_session_writes_nothing_when_it_wakes(fleet: Fleet) -> None:
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.INSTALLING, *HOSTS)
        deposed = fleet.leader()
        with fleet.zookeeper() as zk, fleet.without(deposed):
            fence = zk.get(paths.FENCE)
            plan = zk.get(paths.plan(SERVICE))
            assert fence is not None
            assert plan is not None
            fleet.freeze(deposed)
            fleet.until("another leads", lambda: any(fleet.leads(r) for r in REPLICAS if r != deposed))
            with pytest.raises(Conflict):  # what the sleeper would write: what it knows is still so, but for the fence
                zk.commit([Check(paths.FENCE, fence.version), Set(paths.plan(SERVICE), plan.data, plan.version)])
            fleet.open_gate()
            rollout.waits(S.RAMPING, "ramp")
            history = rollout.now().history
            fleet.thaw(deposed)
            fleet.until("the sleeper stands by", lambda: fleet.leads(deposed) is False)
            assert rollout.now().history == history
            assert fleet.leader() != deposed
        rollout.ask("resume")
        rollout.over(S.SWITCHED)


def test_both_replicas_are_restarted_under_a_rollout(fleet: Fleet) -> None:
    """One after the other, twice, while hosts install and while edges load; whoever watches it notices nothing."""
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        with fleet.command("rollout", "watch", SERVICE, str(rollout.number)) as watching:
            rollout.waits(S.INSTALLING, *HOSTS)
            for replica in REPLICAS:
                fleet.restart(replica)
            fleet.open_gate()
            for replica in REPLICAS:
                fleet.restart(replica)
            rollout.waits(S.RAMPING, "ramp")
            rollout.ask("resume")
            rollout.over(S.SWITCHED)
            assert watching.wait(PATIENCE) == 0


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "hangs", "cut-off"])
def test_a_hosts_agent_is_lost_while_it_installs(fleet: Fleet, how: str) -> None:
    if how == "cut-off" and fleet.partition.why_not:
        pytest.skip(f"no partition here: {fleet.partition.why_not}")
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy()
        rollout.waits(S.INSTALLING, *HOSTS)
        if how == "killed":
            fleet.kill("host-2")
            fleet.open_gate()
        else:
            away, back = {
                "hangs": (fleet.freeze, fleet.thaw),
                "cut-off": (fleet.partition.cut, fleet.partition.heal),
            }[how]
            away("host-2")
            fleet.until("it is away", lambda: "went away" in rollout.missing().get("host-2", ""))
            fleet.open_gate()
            rollout.waits(S.INSTALLING, "host-2")
            back("host-2")
        rollout.over(S.SWITCHED)


# -- ZooKeeper --------------------------------------------------------------------------------------------------------


def test_one_of_three_zookeepers_is_lost(fleet: Fleet) -> None:
    """The one that leads them."""
    with fleet.clients.unharmed():
        lost = fleet.zookeeper_leader()
        fleet.strike(lost)
        rollout = fleet.deploy()
        rollout.over(S.SWITCHED)
        fleet.start(lost)


ZOOKEEPERS = ("zookeeper-1", "zookeeper-2", "zookeeper-3")


@pytest.mark.parametrize("how", ["two-of-three-killed", "all-killed", "all-hang-longer-than-a-session"])
def test_zookeeper_is_away(fleet: Fleet, how: str) -> None:
    """Nothing moves, everything serves, and whoever asks is told why. Then it goes on by itself."""
    parts = ZOOKEEPERS[:2] if how.startswith("two") else ZOOKEEPERS
    kills = how.endswith("killed")
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.INSTALLING, *HOSTS)
        for part in parts:
            (fleet.strike if kills else fleet.freeze)(part)
        # The post-install ends now; what would come next takes a version away.
        fleet.open_gate()
        began, requests = time.monotonic(), fleet.clients.count
        for replica in fleet.state.barrier:
            fleet.until(f"{replica.id} says it", lambda r=replica: "ZooKeeper" in fleet.unready(r.id))
        for edge in (WELL, HURT):
            assert fleet.health(edge) == 200
            assert fleet.ask(edge)[0] == rollout.default
        # It is away for so long, whatever happens: there is nothing to wait for but time.
        time.sleep(max(0.0, began + (5.0 if kills else 2 * SESSION) - time.monotonic()))
        assert pools(fleet) == rollout.pools, "no host has stopped or started anything"
        assert fleet.clients.count > requests
        for part in parts:
            (fleet.start if kills else fleet.thaw)(part)
        rollout.waits(S.RAMPING, "ramp")
        rollout.ask("resume")
        rollout.over(S.SWITCHED)


# -- clocks -----------------------------------------------------------------------------------------------------------


DAY = 86400


def test_wall_clocks_jump(fleet: Fleet) -> None:
    """Those of the leading replica and of an edge's agent, days forth and back: nobody compares them."""
    if not fleet.has_clocks:
        pytest.skip("neither tcc nor gcc is installed")
    if fleet.leader() != "barrier-2":
        fleet.restart("barrier-1")
        fleet.until("the one with the clock leads", lambda: fleet.leader() == "barrier-2")
    with fleet.clients.unharmed():
        fleet.close_gate()
        rollout = fleet.deploy(hold=True)
        rollout.waits(S.INSTALLING, *HOSTS)
        fleet.set_clock(3 * DAY)
        fleet.open_gate()
        rollout.waits(S.RAMPING, "ramp")
        fleet.set_clock(-2 * DAY)
        rollout.ask("resume")
        rollout.over(S.SWITCHED)
    at = [event.at for event in rollout.now().history]
    assert max(at) - min(at) > 4 * DAY, "the clock did jump"
