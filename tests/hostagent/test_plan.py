"""The host's rules, first one by one, then all together in a world that crashes anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.model import Enabled, EnabledBuild, Health, ServiceConfig, SlotState
from hostagent.plan import Decision, decide
from hostagent.view import Reached, SlotView, View
from hostagent.work import Check, Fetch, Prepare, Prune, Revive, Start, Stop, Unpack, Work


def digest(build: str) -> str:
    return f"sha256:{build.encode().hex():0>64}"


def enabled(serial: int, *builds: str) -> Enabled:
    return Enabled(serial=serial, builds=tuple(EnabledBuild(build=b, digest=digest(b)) for b in builds))


DUAL = ServiceConfig()
INPLACE = ServiceConfig(strategy="inplace", ports=(8000,))


def serving(index: int, build: str, live: int = 2) -> SlotView:
    return SlotView(index, 8000 + index, build, processes=2, live=live, nginx=True, checked=True)


def empty(index: int) -> SlotView:
    return SlotView(index, 8000 + index)


def view(
    want: Enabled | None,
    *slots: SlotView,
    turn: bool = True,
    reached: Enabled | None = None,
    has: str = "",
    archives: str = "",
    config: ServiceConfig = DUAL,
) -> View:
    """``has`` and ``archives``: builds of one letter."""
    return View(
        config=config,
        enabled=want,
        turn=want.serial if want and turn else None,
        reached=Reached(serial=reached.serial, builds=reached.builds) if reached else Reached(),
        slots=slots or tuple(empty(i) for i in range(config.slots)),
        releases={b: digest(b) for b in has},
        archives=frozenset(archives),
        downloads=frozenset(archives),
    )


# -- one by one -------------------------------------------------------------------------------------------------------


def work(v: View) -> list[Work]:
    return list(decide(v).work)


def test_nothing_is_enabled() -> None:
    assert work(view(None)) == []
    assert not decide(view(None)).complete


def test_a_first_build_step_by_step() -> None:
    want = enabled(1, "a")
    assert work(view(want)) == [Fetch("a", digest("a"))]
    assert work(view(want, archives="a")) == [Unpack("a", digest("a"))]
    assert work(replace(view(want, has="a"), unprepared=frozenset("a"))) == [Prepare("a", digest("a"))]
    assert work(view(want, has="a")) == [Start(0, "a")]
    started = replace(serving(0, "a"), checked=False)
    assert work(view(want, started, empty(1), has="a")) == [Check(0, "a")]
    done = decide(view(want, serving(0, "a"), empty(1), has="a"))
    assert (done.work, done.members, done.complete) == ((), {0}, True)


def test_a_release_of_another_digest_is_none() -> None:
    v = view(enabled(1, "a"))
    assert work(replace(v, releases={"a": digest("z")})) == [Fetch("a", digest("a"))]


@pytest.mark.parametrize("config", [DUAL, INPLACE])
def test_nothing_without_a_turn(config: ServiceConfig) -> None:
    assert work(view(enabled(1, "a"), turn=False, config=config)) == []
    old = [serving(0, "a"), empty(1)][: config.slots]
    d = decide(view(enabled(2, "b"), *old, turn=False, reached=enabled(1, "a"), has="ab", config=config))
    assert (d.work, d.members, d.complete) == ((), {0}, False)


def test_a_turn_for_an_older_serial_is_none_and_one_for_a_newer_is_one() -> None:
    v = view(enabled(5, "a"))
    assert work(replace(v, turn=4)) == []
    assert work(replace(v, turn=6)) == [Fetch("a", digest("a"))]


def test_what_was_reached_is_repaired_without_a_turn() -> None:
    want = enabled(1, "a")
    assert work(view(want, turn=False, reached=want, has="a")) == [Start(0, "a")]


def test_a_reached_serial_of_other_builds_is_another() -> None:
    """ZooKeeper was wiped, and somebody counts anew."""
    assert work(view(enabled(1, "b"), turn=False, reached=enabled(1, "a"), has="b")) == []
    assert work(view(enabled(1, "b"), turn=False, reached=enabled(9, "b"), has="b")) == []


def test_the_new_build_goes_where_the_one_not_kept_is() -> None:
    for kept in (0, 1):
        slots = [serving(i, "b" if i == kept else "a") for i in (0, 1)]
        want = enabled(3, "c", "b")
        assert work(view(want, *slots, has="ab")) == [Fetch("c", digest("c"))]
        d = decide(view(want, *slots, has="abc"))
        assert d.work == (Stop(1 - kept, "a"),)
        assert d.members == {kept}, "deregistered before it is stopped"
        slots[1 - kept] = empty(1 - kept)
        assert work(view(want, *slots, has="abc")) == [Start(1 - kept, "c")]


def test_nothing_is_stopped_before_the_new_release_is_complete() -> None:
    for stage in ("", "c"):
        d = decide(view(enabled(3, "c", "b"), serving(0, "a"), serving(1, "b"), has="ab", archives=stage))
        assert not any(isinstance(w, Stop) for w in d.work)
        assert d.members == {0, 1}
    v = view(enabled(3, "c", "b"), serving(0, "a"), serving(1, "b"), has="abc")
    d = decide(replace(v, unprepared=frozenset("abc")))
    assert d.work == (Prepare("c", digest("c")),) and d.members == {0, 1}


def test_nothing_is_stopped_for_a_build_whose_port_another_service_has() -> None:
    for slots in ((serving(0, "a"),), (empty(0),)):
        v = replace(view(enabled(3, "b"), *slots, has="ab", config=INPLACE), taken={8000: "web"})
        d = decide(v)
        assert d.work == () and d.members == {s.index for s in slots if s.build} and not d.complete
        assert d.problem == "b needs port 8000, which web has on this host: give one of the two other `ports`"
    beside = replace(view(enabled(3, "b", "a"), serving(0, "a"), empty(1), has="ab"), taken={8000: "web"})
    assert decide(beside).problem is None, "what runs there already is not asked to move"


def test_an_empty_slot_is_preferred_and_leftovers_go_when_the_new_one_serves() -> None:
    want = enabled(2, "b")
    slots = serving(0, "a"), empty(1)
    assert work(view(want, *slots, has="ab")) == [Start(1, "b")]
    started = replace(serving(1, "b"), checked=False)
    assert work(view(want, serving(0, "a"), started, has="ab")) == [Check(1, "b")]
    d = decide(view(want, serving(0, "a"), serving(1, "b"), has="ab"))
    assert d.work == (Stop(0, "a"),) and not d.complete


def test_in_place() -> None:
    want = enabled(2, "b")
    assert work(view(want, serving(0, "a"), has="a", config=INPLACE)) == [Fetch("b", digest("b"))]
    d = decide(view(want, serving(0, "a"), has="ab", config=INPLACE))
    assert (d.work, d.members) == ((Stop(0, "a"),), frozenset())
    assert work(view(want, empty(0), has="ab", config=INPLACE)) == [Start(0, "b")]


def test_from_two_slots_to_one() -> None:
    """What runs outside the config's slots stays while it is enabled, and goes when its successor serves."""
    slots = serving(0, "a"), serving(1, "b")
    assert work(view(enabled(4, "b"), *slots, has="ab", config=INPLACE)) == [Stop(0, "a")]
    assert work(view(enabled(5, "c"), *slots, has="abc", config=INPLACE)) == [Stop(0, "a")]
    assert work(view(enabled(5, "c"), serving(0, "c"), slots[1], has="abc", config=INPLACE)) == [Stop(1, "b")]


def test_all_is_withdrawn() -> None:
    d = decide(view(enabled(4), serving(0, "a"), serving(1, "b")))
    assert d.work == (Stop(0, "a"), Stop(1, "b")) and d.members == frozenset()
    assert decide(view(enabled(4))).complete


def test_more_builds_than_slots() -> None:
    d = decide(view(enabled(4, "c", "b", "a"), has="abc"))
    assert d.work == (Start(0, "c"), Start(1, "b"))
    assert d.problem and "no slot is free for a" in d.problem
    assert not d.complete


def test_the_same_build_twice_is_one_too_many() -> None:
    assert work(view(enabled(4, "a"), serving(0, "a"), serving(1, "a"), has="a")) == [Stop(1, "a")]


def test_a_pool_that_was_given_up_is_revived_before_it_is_checked() -> None:
    given_up = replace(serving(0, "a", live=0), dead=True, checked=False)
    assert work(view(enabled(1, "a"), given_up, empty(1), has="a")) == [Revive(0, "a")]


def test_a_sick_pool_does_not_hold_up_the_install_beside_it() -> None:
    sick = replace(serving(1, "b", live=0), checked=False)
    assert work(view(enabled(3, "c", "b"), empty(0), sick, has="bc")) == [Check(1, "b"), Start(0, "c")]


def test_what_waits_for_its_turn_to_go_is_repaired_last() -> None:
    old = replace(serving(0, "a"), checked=False)
    new = replace(serving(1, "b"), checked=False)
    assert work(view(enabled(2, "b"), old, new, turn=False)) == [Check(1, "b"), Check(0, "a")]


@pytest.mark.parametrize(("live", "fit"), [(2, True), (1, True), (0, False)])
def test_registered_from_half_of_the_processes_on(live: int, fit: bool) -> None:
    d = decide(view(enabled(1, "a"), serving(0, "a", live), empty(1), has="a"))
    assert (d.members == {0}) is fit
    assert d.complete is fit
    assert d.slots[0].state == (SlotState.SERVING if live == 2 else SlotState.DEGRADED)


@pytest.mark.parametrize("broken", [{"nginx": False}, {"checked": False}])
def test_not_registered_without_nginx_or_unchecked(broken: dict[str, bool]) -> None:
    assert decide(view(enabled(1, "a"), replace(serving(0, "a"), **broken), empty(1))).members == frozenset()


def test_the_floor_is_rounded_up_and_never_nothing() -> None:
    def of(percent: int, processes: int) -> int:
        health = Health(pool_floor=percent)
        return next(live for live in range(processes + 1) if health.enough(live, processes))

    assert [of(50, 1), of(50, 2), of(50, 3), of(100, 3), of(1, 4), of(94, 32)] == [1, 1, 2, 3, 1, 31]


def test_pruned_when_there_is_nothing_else_to_do() -> None:
    v = view(enabled(9, "h"), serving(0, "h"), serving(1, "g"), turn=False, has="hgfedcba", archives="x")
    keep2 = DUAL.model_copy(update={"keep": 2})
    assert work(replace(v, config=keep2)) == [Prune(("a", "b", "c", "d", "x"))]
    assert work(replace(v, downloads=frozenset())) == [Prune(("a",))]
    assert work(replace(v, turn=9)) == [Stop(1, "g")]


def test_what_an_abort_would_put_back_is_not_pruned() -> None:
    v = view(enabled(9, "h"), serving(0, "h"), empty(1), has="hgfedcba")
    v = replace(v, config=DUAL.model_copy(update={"keep": 2}))
    assert work(v) == [Prune(("a", "b", "c", "d", "e"))]
    want = enabled(9, "h").model_copy(update={"kept": ("b", "h", "x")})
    assert work(replace(v, enabled=want)) == [Prune(("a", "c", "d", "e"))]


def test_what_is_left_of_a_download_goes_and_not_what_was_made_from_it() -> None:
    v = view(enabled(9, "h"), serving(0, "h"), serving(1, "g"), turn=False, has="hgf")
    assert work(replace(v, downloads=frozenset("ghfx"))) == [Prune(("x",), ("f", "g", "h"))]
    anew = replace(v, downloads=frozenset("h"), releases={**v.releases, "h": f"sha256:{'9' * 64}"})
    assert Prune((), ("h",)) not in work(anew)


# -- all together -----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A machine that does what it is told, or half of it; and the leader, who keeps to the protocol."""

    config: ServiceConfig
    want: Enabled = field(default_factory=Enabled)
    turn: int | None = None
    reached: Reached = field(default_factory=Reached)
    slots: dict[int, SlotView] = field(default_factory=dict)
    releases: set[str] = field(default_factory=set)
    archives: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)

    def view(self) -> View:
        return View(
            config=self.config,
            enabled=self.want,
            turn=self.turn,
            reached=self.reached,
            slots=tuple(self.slots.get(i, empty(i)) for i in sorted({*range(self.config.slots), *self.slots})),
            releases={b: digest(b) for b in sorted(self.releases)},
            unprepared=frozenset(self.releases - self.prepared),
            archives=frozenset(self.archives),
            downloads=frozenset(self.archives),
        )

    def look(self) -> Decision:
        d = decide(self.view())
        if d.complete:
            self.reached = Reached(serial=self.want.serial, builds=self.want.builds)
        self.rules(d)
        return d

    def rules(self, d: Decision) -> None:
        wanted = {e.build for e in self.want.builds}
        may = (self.turn is not None and self.turn >= self.want.serial) or self.reached.matches(self.want)
        for w in d.work:
            if isinstance(w, Stop):
                assert may
                others = [s.index for s in self.slots.values() if s.build == w.build and s.index != w.slot]
                assert w.build not in wanted or others, "an enabled build is never stopped, but for a double of it"
                assert w.slot not in d.members
            if isinstance(w, Start):
                assert may and w.slot not in self.slots and w.build in self.releases and w.build in wanted
                assert w.build in self.prepared
            if isinstance(w, Fetch | Unpack | Prepare):
                assert may and w.build in wanted
            if isinstance(w, Prune):
                assert not set(w.builds) & (wanted | {s.build for s in self.slots.values() if s.build})

    def do(self, w: Work, *, half: bool = False) -> None:
        """``half``: the agent is killed in the middle."""
        match w:
            case Fetch(build):
                self.archives |= set() if half else {build}
            case Unpack(build):
                self.releases |= {build}  # half: it is complete, and what it was made from not yet thrown away
                self.archives -= set() if half else {build}
            case Prepare(build):
                self.prepared |= set() if half else {build}
            case Start(slot, build):
                if not half:
                    self.slots[slot] = SlotView(slot, 8000 + slot, build, 2, 2, True, False)
            case Stop(slot):
                if half:  # supervisord has stopped the programs and still knows the group
                    self.slots[slot] = replace(self.slots[slot], live=0, nginx=False, checked=False, dead=True)
                else:
                    del self.slots[slot]
            case Revive(slot):
                self.slots[slot] = replace(self.slots[slot], live=2, nginx=True, dead=False)
            case Check(slot):
                self.slots[slot] = replace(self.slots[slot], checked=not half)
            case Prune(builds, downloads):
                gone = set(builds[: len(builds) // 2] if half else builds)
                self.releases -= gone
                self.prepared -= gone
                self.archives -= set() if half else {*builds, *downloads}


Event = st.one_of(
    st.tuples(st.just("enable"), st.lists(st.sampled_from("abcd"), max_size=2, unique=True)),
    st.tuples(
        st.sampled_from(["turn", "no turn", "work", "half", "agent restart", "reboot", "crash", "another python"]),
        st.just([]),
    ),
)


@given(inplace=st.booleans(), picks=st.lists(st.tuples(Event, st.integers(0, 3)), max_size=40), last=st.booleans())
@settings(max_examples=400, deadline=None)
def test_from_wherever_it_was_interrupted_it_ends_in_what_is_enabled(
    inplace: bool, picks: list[tuple[tuple[str, list[str]], int]], last: bool
) -> None:
    w = World(INPLACE if inplace else DUAL)
    for (event, builds), pick in picks:
        match event:
            case "enable":
                w.want = enabled(w.want.serial + 1, *builds[: w.config.slots])
            case "turn":
                w.turn = w.want.serial
            case "no turn":
                w.turn = None
            case "work" | "half":
                if todo := w.look().work:
                    w.do(todo[pick % len(todo)], half=event == "half")
            case "agent restart":
                w.slots = {i: replace(s, checked=False) for i, s in w.slots.items()}
            case "reboot":
                w.slots = {i: replace(s, checked=False, live=2, nginx=True, dead=False) for i, s in w.slots.items()}
            case "another python":
                w.prepared.clear()
            case "crash":
                w.slots = {i: replace(s, live=0, dead=True) for i, s in w.slots.items()}
        w.look()
    w.turn = w.want.serial
    for _ in range(40):
        if not (todo := w.look().work):
            break
        w.do(todo[-1 if last else 0])
    end = w.look()
    assert end.work == () and end.complete
    assert {s.build for s in w.slots.values()} == {e.build for e in w.want.builds}
    assert end.members == set(w.slots)
