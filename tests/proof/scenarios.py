"""Stories, told to a world: what operators do and what goes wrong, one after the other.

Each is played as it is (``test_scenarios``), with guards broken (``test_mutations``), with the leader killed
at each of its writes (``test_kills``), and written down for people (``transcripts``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.model import RolloutState as S
from fleet.model import ServiceConfig
from hostagent.work import Check, Fetch, Revive
from tests.proof.edges import SERVICE
from tests.proof.world import Verb, World


@dataclass(frozen=True)
class Scenario:
    name: str
    play: Callable[[World], None]
    config: dict[str, object] = field(default_factory=dict)
    #: How many edges and hosts.
    edges: int = 2
    hosts: int = 3
    #: Builds that are rolled out before the story begins.
    before: str = "AB"

    @property
    def title(self) -> str:
        return (self.play.__doc__ or self.name).strip().splitlines()[0]

    def world(self) -> World:
        world = World(
            ServiceConfig.model_validate({"waves": {"concurrency": 1}, "stall_seconds": 20} | self.config),
            edges=[f"edge-{i + 1}" for i in range(self.edges)],
            hosts=[f"host-{i + 1}" for i in range(self.hosts)],
        )
        for build in self.before:
            world.deploy(build)
            world.settle()
        return world


SCENARIOS: dict[str, Scenario] = {}


def scenario(**fields: object) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def add(play: Callable[[World], None]) -> Callable[[World], None]:
        name = play.__name__
        SCENARIOS[name] = Scenario(name, play, **fields)  # type: ignore[arg-type]
        return play

    return add


def until(world: World, state: S, rounds: int = 60, *, idle: tuple[str, ...] = ()) -> None:
    """Some time passes, until the last rollout is in that state."""
    for _ in range(rounds):
        rollout = world.rollout()
        if rollout is not None and rollout.state is state and rollout.request is None:
            return
        world.round(idle=idle)
    raise AssertionError(f"not {state} after {rounds} rounds: {world.rollout()}")


def requests_last(world: World, edge: str = "edge-1") -> None:
    """One for each version that the edge serves; its drain waits for them."""
    varnish = world.edges[edge].varnish
    for version in routing.serving if (routing := world.edges[edge].routing) else ():
        varnish.begin(SERVICE, version)


@scenario(before="")
def first_deploy(world: World) -> None:
    """The first version of a service: nothing is served that could suffer, so all hosts install at once."""
    world.deploy("A")
    world.settle()


@scenario()
def third_release(world: World) -> None:
    """An ordinary release: A is withdrawn, drained, replaced by C on the hosts; C is offered, warm, and the default."""
    requests_last(world)
    world.deploy("C")
    world.rounds(4)
    world.edges["edge-1"].varnish.end()
    world.settle()


@scenario()
def ramp(world: World) -> None:
    """A ramp: one step ends by its hold, the next because somebody says so."""
    world.deploy("C", ramp=(1, 10, 100), hold=20.0)
    until(world, S.RAMPING)
    world.rounds(22)
    world.ask("resume")
    world.settle()


@scenario()
def ramp_by_verdicts(world: World) -> None:
    """A ramp whose steps wait for who compares the versions: undecided, then passed, and failed at the next step."""
    world.deploy("C", ramp=(1, 10, 50), hold="verdict")
    until(world, S.RAMPING)
    world.rounds(200)
    world.verdict("undecided", "41 requests of C are too few", 1)
    world.rounds(2)
    world.verdict("pass", "errors 0.11 % against 0.12 %", 1)
    world.verdict("pass", "said twice", 10)
    world.rounds(3)
    world.verdict("fail", "errors 2.3 % against 0.12 %", 10)
    world.settle()


@scenario()
def preview(world: World) -> None:
    """Whoever carries the token sees the version that is not the default; the token ends with its time."""
    world.preview("A", seconds=30.0)
    world.rounds(40)
    world.settle()


@scenario(config={"when_busy": "queue"})
def queued(world: World) -> None:
    """One waits while another is under way; a newer one takes its place; what was before comes to its end first."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.deploy("D")
    world.rounds(2)
    world.deploy("E")
    world.settle(rounds=200)


@scenario()
def pause_and_resume(world: World) -> None:
    """Paused while hosts install: whoever has its turn finishes, nobody else begins; then it goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.ask("pause")
    world.rounds(12)
    world.ask("resume")
    world.settle()


def _offered_unseen(world: World) -> None:
    """What is being deployed is offered, and edge-1 cannot reach the hosts that have it."""
    until(world, S.INSTALLING)
    until(world, S.OFFERING, idle=("edge-1",))
    world.edges["edge-1"].varnish.probes_stuck = True


def _hold(world: World, state: S) -> None:
    """A rollout of C that stays in ``state``."""
    if state is S.WITHDRAWING:
        requests_last(world)
    world.deploy("C", ramp=(10,) if state is S.RAMPING else (), hold=1000.0)
    if state is S.OFFERING:
        _offered_unseen(world)
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


@scenario(config={"stall_seconds": 5})
def stall_and_evict(world: World) -> None:
    """An edge's agent is gone: the rollout stalls by name; the edge is evicted, and comes back after the release."""
    world.edges["edge-2"].kill()
    world.edges["edge-2"].expire()
    world.deploy("C")
    world.rounds(10, idle=["edge-2"])
    world.evict("edge-2")
    for _ in range(20):
        world.round(idle=["edge-2"])
    world.settle()


@scenario()
def deposed_leader(world: World) -> None:
    """The leader is stopped in the middle of a decision, for longer than its session; its write comes too late."""
    requests_last(world)
    world.deploy("C")
    until(world, S.WITHDRAWING)
    world.edges["edge-1"].varnish.end()
    leader = world.replicas[world.promises.leader]

    def meanwhile() -> None:
        leader.expire()
        for _ in range(3):
            world.round(idle=[leader.name])
            world.ask("abort")

    assert leader.session is not None
    for part in world.edges.values():
        part.cycle()
    leader.session.faults.pause_before_write, leader.session.faults.meanwhile = True, meanwhile
    leader.cycle()
    world.settle()


@scenario()
def deposed_leader_alone(world: World) -> None:
    """The same, and its successor has written nothing yet: only the fence keeps the late write out."""
    requests_last(world)
    world.deploy("C")
    until(world, S.WITHDRAWING)
    world.edges["edge-1"].varnish.end()
    leader = world.replicas[world.promises.leader]
    successor = next(r for r in world.replicas.values() if r is not leader)

    def meanwhile() -> None:
        for part in (leader, *world.edges.values()):
            part.expire()
        successor.cycle()

    for part in world.edges.values():
        part.cycle()
    assert leader.session is not None
    leader.session.faults.pause_before_write, leader.session.faults.meanwhile = True, meanwhile
    leader.cycle()
    world.settle()


@scenario()
def leader_is_back_before_its_session_ends(world: World) -> None:
    """The leader is killed and back at once: it waits for its own former session to expire, and then goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.replicas[world.promises.leader].kill()
    world.rounds(3)
    assert world.rollout().state is S.INSTALLING  # type: ignore[union-attr]
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
def redeploy(world: World) -> None:
    """What is the default already is done at once; what is served beside it is staged and committed."""
    world.deploy("B")
    world.settle()
    world.deploy("A")
    world.settle()


@scenario()
def host_joins(world: World) -> None:
    """A host joins while others install: it gets its turn, and the rollout waits for it."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.rounds(2)
    world.add_host("host-9")
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
def in_place(world: World) -> None:
    """A service with one slot: one mixed pool while hosts restart, a host at a time."""
    world.deploy("B")
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


@scenario(before="AB", edges=2)
def edge_joins_in_between(world: World) -> None:
    """An edge joins, and turns green, between the leader's look at the roster and its next step."""
    for edge in world.edges.values():  # nobody is left that the leader would wait for
        edge.kill()
        edge.expire()
        world.evict(edge.name)
    new = world.add_edge("edge-9")
    world.deploy("C")
    leader = world.replicas[world.promises.leader]
    assert leader.session is not None
    faults = leader.session.faults
    faults.pause_before_write = True
    faults.meanwhile = lambda: [new.cycle() for _ in range(3)] and None
    leader.cycle()
    assert new.takes_traffic, new.said
    world.rounds(15, idle=["edge-1", "edge-2", "edge-9"])
    world.settle()


@scenario()
def edge_restarts(world: World) -> None:
    """An edge boots from its last good set while A is withdrawn: it takes no traffic until it has the latest plan."""
    edge = world.edges["edge-1"]
    world.deploy("C")
    until(world, S.INSTALLING)
    edge.restart_all()
    world.rounds(3, idle=["edge-1"])
    world.settle()


@scenario()
def sessions_expire(world: World) -> None:
    """ZooKeeper forgets every session at once: no edge believes that all hosts are gone."""
    for part in world.parts():
        part.expire()
    world.rounds(2, idle=list(world.machines))
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


@scenario()
def zookeeper_away(world: World) -> None:
    """ZooKeeper is away for a while, in the middle of a release: nothing moves, then it goes on."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.server.up = False
    world.rounds(30)
    world.server.up = True
    world.settle()


@scenario()
def leader_changes_in_a_ramp(world: World) -> None:
    """The leader dies in a ramp's step; the successor, whose clock is another, holds it anew."""
    world.deploy("C", ramp=(10, 50), hold=20.0)
    until(world, S.RAMPING)
    world.rounds(5)
    leader = world.replicas[world.promises.leader]
    leader.kill()
    leader.expire()
    world.rounds(10, idle=[leader.name])
    world.settle()


@scenario()
def driven_by_hand(world: World) -> None:
    """A deploy job drives the steps itself: withdraw, offer, default; and back."""
    world.by_hand("withdraw", "A")
    world.rounds(2)
    world.by_hand("offer", "A")
    world.rounds(2)
    world.by_hand("default", "A")
    world.settle()
    world.by_hand("default", "B")
    world.settle()


@scenario()
def evicted_edge_serves_on(world: World) -> None:
    """An evicted edge that is only slow is out of the load balancer: what it then serves harms nobody."""
    requests_last(world, "edge-2")
    world.deploy("C")
    world.rounds(4)
    world.evict("edge-2")
    world.rounds(20, idle=["edge-2"])
    world.settle()


@scenario()
def probes_find_nothing(world: World) -> None:
    """One edge cannot reach the hosts of C: the default does not move, and it says how many that edge sees."""
    world.deploy("C")
    _offered_unseen(world)
    world.rounds(10)
    world.edges["edge-1"].varnish.probes_stuck = False
    world.settle()


@scenario()
def agent_away(world: World) -> None:
    """An edge's agent is gone and its Varnish serves on: its death is not the edge's, and the release waits for it."""
    world.edges["edge-1"].kill()
    world.edges["edge-1"].expire()
    world.deploy("C")
    world.rounds(15, idle=["edge-1"])
    world.settle()


@scenario()
def agent_away_at_the_offer(world: World) -> None:
    """An edge's agent is gone while hosts install: the default does not move without it."""
    world.deploy("C")
    until(world, S.INSTALLING)
    world.edges["edge-1"].kill()
    world.edges["edge-1"].expire()
    world.rounds(25, idle=["edge-1"])
    world.settle()


@scenario(config={"stall_seconds": 5})
def compiler_fails(world: World) -> None:
    """Varnish refuses to compile at one edge: the release waits, and says what the compiler said."""
    world.edges["edge-1"].varnish.broken_compiler = "cc: no space left on device"
    world.deploy("C")
    world.rounds(8)
    world.edges["edge-1"].varnish.broken_compiler = None
    world.settle()


@scenario()
def staging_fails(world: World) -> None:
    """One edge has the offer, and cannot compile what is staged: no edge switches."""
    world.deploy("C")
    until(world, S.INSTALLING)
    varnish = world.edges["edge-1"].varnish
    varnish.broken_compiler, varnish.compiles = "cc: no space left on device", 1
    until(world, S.OFFERING)
    world.rounds(8)
    varnish.broken_compiler = None
    world.settle()


def _switched_without(world: World, name: str) -> None:
    """A release of C is switched, and that edge, though ready for it, has not looked since."""
    world.deploy("C")
    edge, rollout = world.edges[name], world.rollout()
    while rollout is not None and rollout.state is not S.SWITCHED:
        ack = edge.ack()
        ready = ack is not None and ack.staged >= world.plan().epoch and ack.healthy.get("C", 0) >= len(world.machines)
        world.round(idle=[name] if ready else ())
        rollout = world.rollout()


@scenario()
def edge_restarts_at_the_switch(world: World) -> None:
    """An edge boots before it has switched: it takes no traffic until it has, however long its probes take."""
    _switched_without(world, "edge-1")
    edge = world.edges["edge-1"]
    edge.restart_all()
    edge.varnish.probes_stuck = True
    edge.cycle()
    world.round(0.1)
    edge.varnish.probes_stuck = False
    world.settle()


@scenario()
def edge_joins(world: World) -> None:
    """A new edge turns green when it has the plan and is waited for."""
    world.add_edge("edge-9")
    world.settle()
    world.deploy("C")
    world.settle()
