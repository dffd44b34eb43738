"""The decisions, exhaustively: a model of what Varnish would report, driven by the real planner."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import plan, render
from edge.look import Look, Vcl
from edge.members import Host
from edge.plan import Action, Cut, Discard, Label, Load, Memory, Use, Want
from fleet.model import Ack, Plan, ServiceConfig, Staged

CONFIG = ServiceConfig()
HOSTS = (Host("10.0.0.1", 8000),)
MORE = (*HOSTS, Host("10.0.0.2", 8000))


def want(p: Plan, *members: tuple[Host, ...], service: str = "app") -> Want:
    sets = [dict.fromkeys(p.serving, m) for m in members or (HOSTS,)]
    staged = tuple(render.service(service, CONFIG, p.committed(), s) for s in sets) if p.staged else ()
    return Want(service, p.epoch, CONFIG.match, tuple(render.service(service, CONFIG, p, s) for s in sets), staged)


A1 = Plan(epoch=1, generation=1, default="A", serving=("A",))
OFFER = Plan(epoch=2, generation=1, default="A", serving=("B", "A"), staged=Staged(generation=2, default="B"))
SWITCHED = Plan(epoch=3, generation=2, default="B", serving=("B", "A"), staged=Staged(generation=3, default="A"))
WITHDRAWN = Plan(epoch=4, generation=2, default="B", serving=("B",), retired=("A",))
STORY = (A1, OFFER, SWITCHED, WITHDRAWN)


class Model:
    """What varnishd would list, if it did what it is told."""

    def __init__(self) -> None:
        self.vcls: list[Vcl] = [Vcl("root_0000000000000000", "active", "warm")]
        self.memory = Memory()
        self.busy: set[str] = set()
        self.done: list[Action] = []

    @property
    def look(self) -> Look:
        return Look(1, 2, tuple(self.vcls))

    def do(self, action: Action) -> None:
        self.done.append(action)
        names = {v.name: v for v in self.vcls if v.status != "discarded"}
        match action:
            case Load(vcl):
                assert vcl.name not in names
                self.vcls.append(Vcl(vcl.name, "available", "warm"))
                labels = [n for n in names if n.startswith("svc-")]
                assert all(f"vcl({label})" not in vcl.text or label in names for label in (*labels, "svc-app"))
            case Label(label, name):
                assert name in names and name in self.memory.ready
                self.vcls = [v for v in self.vcls if v.name != label]
                self.vcls.append(Vcl(label, "available", "warm", target=name))
            case Use(name):
                assert name in names
                self.vcls = [
                    replace(v, status="active" if v.name == name else "available") if v.status != "discarded" else v
                    for v in self.vcls
                ]
            case Discard(name):
                gone = names[name]
                assert gone.status != "active" and name not in plan.targets(self.look).values()
                roots = [v for v in self.vcls if v.name.startswith("root_") and v.status != "active"]
                assert gone.target is None or not roots, "Cannot discard VCL label, other VCLs depend on it"
                self.vcls.remove(gone)
                if name in self.busy:
                    self.vcls.append(replace(gone, status="discarded", busy=1))
            case Cut(name):
                assert name in self.memory.overdue
                self.memory = replace(self.memory, cut=self.memory.cut | {name})

    def remember(self, *wants: Want) -> None:
        epochs = dict(self.memory.epochs)
        for w in wants:
            for r in (*w.current, *w.staged):
                epochs[r.name] = max(w.epoch, epochs.get(r.name, 0))
        ready = self.memory.ready | set(plan.targets(self.look).values())
        self.memory = replace(self.memory, epochs=epochs, ready=ready)

    def probed(self) -> None:
        self.memory = replace(self.memory, ready=frozenset(plan.loaded(self.look)))

    def child_restarted(self) -> None:
        """VCLs are replayed; health is unknown; what was only waiting for its last request is gone."""
        self.vcls = [v for v in self.vcls if v.status != "discarded"]
        self.memory = replace(self.memory, ready=frozenset(plan.targets(self.look).values()))

    def converge(self, *wants: Want, steps: int = 100) -> int:
        """Steps taken until there is nothing to do, at most ``steps``."""
        self.remember(*wants)
        for taken in range(steps):
            red = plan.red(wants, self.look, rostered=True, dead=frozenset())
            step = plan.decide(wants, self.look, self.memory, red)
            if not step.actions and not step.waiting:
                return taken
            for action in step.actions:
                self.do(action)
            if not step.actions:
                self.probed()
        return steps

    def ack(self, w: Want, routed: bool = True) -> Ack:
        return plan.ack(w, self.look, self.memory, routed=routed, ack_of=Ack(incarnation=""))

    def target(self) -> str | None:
        return plan.targets(self.look).get("svc-app")


def test_the_whole_story_converges_and_leaves_only_what_is_needed() -> None:
    model = Model()
    for p in STORY:
        w = want(p)
        model.converge(w)
        assert model.target() == w.current[0].name
        ours = {v.name for v in model.vcls if v.name.startswith("v_")}
        assert ours == {w.current[0].name, *(r.name for r in w.staged)}
        ack = model.ack(w)
        assert (ack.applied, ack.staged, ack.drained) == (p.epoch,) * 3
        assert plan.active(model.look) == render.root(plan.routes([w], model.look), None).name


def test_what_is_overdue_is_cut_once_where_nothing_in_use_sends_requests_and_holds_nothing_up() -> None:
    model = Model()
    model.converge(want(OFFER))
    old = want(OFFER).current[0].name
    model.busy = {old}
    w = want(WITHDRAWN)
    model.converge(w)
    assert model.ack(w).drained == 2
    gone = frozenset({"10.9.9.9:8000"})
    model.memory = replace(model.memory, overdue=frozenset({old}), endpoints={old: gone | {"10.0.0.1:8000"}})
    before = len(model.done)
    model.converge(w)
    assert model.done[before:] == [Cut(old, gone)]
    assert model.ack(w).drained == 4


def test_a_commit_is_one_label_and_comes_before_any_load() -> None:
    model = Model()
    model.converge(want(A1))
    model.converge(want(OFFER))
    before = len(model.done)
    model.converge(want(SWITCHED))
    first, second = model.done[before : before + 2]
    assert first == Label("svc-app", want(OFFER).staged[0].name)
    assert isinstance(second, Load) and second.staged


def test_a_commit_does_not_wait_for_members_that_came_meanwhile() -> None:
    model = Model()
    model.converge(want(OFFER))
    w = want(SWITCHED, MORE, HOSTS)
    model.remember(w)
    step = plan.decide([w], model.look, model.memory, None)
    assert step.actions == (Label("svc-app", want(OFFER).staged[0].name),)
    model.converge(w)
    assert model.target() == w.current[0].name
    assert plan.settled(w, model.look, model.memory)


def test_the_label_waits_for_the_probes() -> None:
    model = Model()
    model.converge(want(A1))
    w = want(OFFER)
    model.remember(w)
    load = plan.decide([w], model.look, model.memory, None)
    assert [type(a) for a in load.actions] == [Load]
    model.do(load.actions[0])
    step = plan.decide([w], model.look, model.memory, None)
    assert w.current[0].name in step.waiting
    assert not any(isinstance(a, Label) for a in step.actions)
    model.probed()
    assert plan.decide([w], model.look, model.memory, None).actions == (Label("svc-app", w.current[0].name),)


@pytest.mark.parametrize("restart", ["none", "agent", "child"])
def test_every_step_may_be_the_last_before_a_crash(restart: str) -> None:
    for stops in itertools.product(range(5), repeat=3):
        model = Model()
        model.converge(want(A1))
        for p, steps in zip(STORY[1:], stops, strict=True):
            model.converge(want(p), steps=steps)
            if restart == "child":
                model.child_restarted()
            if restart == "agent":
                # It knows what is on disk: epochs; and that what is labelled works.
                model.memory = Memory(model.memory.epochs, frozenset(plan.targets(model.look).values()))
            ack = model.ack(want(p))
            assert ack.applied <= p.epoch and ack.drained <= ack.applied
            assert (ack.applied == p.epoch) == (model.target() == want(p).current[0].name)
        model.converge(want(WITHDRAWN))
        ack = model.ack(want(WITHDRAWN))
        assert (ack.applied, ack.staged, ack.drained) == (4, 4, 4)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(STORY), st.integers(0, 8), st.sampled_from(["", "child", "agent"]), st.booleans()),
        max_size=8,
    )
)
def test_whatever_happened_before_it_converges(story: list[tuple[Plan, int, str, bool]]) -> None:
    model = Model()
    for p, steps, restart, more in story:
        model.converge(want(p, MORE if more else HOSTS), steps=steps)
        if restart == "child":
            model.child_restarted()
        elif restart == "agent":
            model.memory = Memory(ready=frozenset(plan.targets(model.look).values()))
    w = want(WITHDRAWN)
    model.converge(w)
    assert model.target() == w.current[0].name
    assert {v.name for v in model.vcls if v.name.startswith(("v_", "root_"))} == {
        w.current[0].name,
        render.root(plan.routes([w], model.look), None).name,
    }
    assert model.ack(w).drained == 4


def test_a_request_on_an_old_vcl_holds_drained_back_and_nothing_else() -> None:
    model = Model()
    model.converge(want(SWITCHED))
    old = model.target()
    assert old
    model.busy.add(old)
    w = want(WITHDRAWN)
    model.converge(w)
    ack = model.ack(w)
    assert (ack.applied, ack.staged, ack.drained) == (4, 4, 3)
    model.vcls = [v for v in model.vcls if v.status != "discarded"]
    assert model.ack(w).drained == 4


def test_an_unknown_old_vcl_counts_as_the_oldest() -> None:
    model = Model()
    w = want(WITHDRAWN)
    model.converge(w)
    model.vcls.append(Vcl("v_app_ffffffffffffffff", "discarded", "cooling", busy=1))
    assert model.ack(w).drained == 0


def test_another_service_is_no_concern_of_this_ones_ack() -> None:
    model = Model()
    a, b = want(A1), want(replace_epoch(A1, 7), service="app-two")
    model.converge(a, b)
    model.vcls.append(Vcl("v_app-two_ffffffffffffffff", "discarded", "cooling", busy=1))
    assert model.ack(a).drained == 1
    assert model.ack(b).drained == 0


def replace_epoch(p: Plan, epoch: int) -> Plan:
    return p.model_copy(update={"epoch": epoch})


def test_nothing_is_acknowledged_without_a_child_or_a_route() -> None:
    model = Model()
    w = want(A1)
    model.converge(w)
    assert model.ack(w, routed=False).applied == 0
    down = plan.ack(w, Look(1, None), model.memory, routed=True, ack_of=Ack(incarnation=""))
    assert (down.applied, down.drained) == (0, 0)


def test_a_staged_vcl_counts_only_warm_and_probed() -> None:
    model = Model()
    w = want(OFFER)
    model.converge(w)
    staged = w.staged[0].name
    assert model.ack(w).staged == 2
    model.vcls = [replace(v, temperature="cold") if v.name == staged else v for v in model.vcls]
    assert model.ack(w).staged == 1
    model.vcls = [replace(v, temperature="warm") if v.name == staged else v for v in model.vcls]
    model.memory = replace(model.memory, ready=model.memory.ready - {staged})
    assert model.ack(w).staged == 1


def test_a_refused_vcl_is_not_tried_again_and_the_last_good_one_stays() -> None:
    model = Model()
    model.converge(want(A1))
    before = model.target()
    w = want(OFFER)
    model.memory = replace(model.memory, refused={w.current[0].name: "no", w.staged[0].name: "no"})
    model.converge(w)
    assert model.target() == before
    assert model.ack(w).applied == 1
    assert before in {v.name for v in model.vcls}


def test_a_service_that_is_gone_is_taken_out_of_the_root_before_its_label() -> None:
    model = Model()
    a, b = want(A1), want(A1, service="other")
    model.converge(a, b)
    before = len(model.done)
    model.converge(a)
    kinds = [type(x).__name__ for x in model.done[before:]]
    assert kinds.index("Use") < kinds.index("Discard")
    assert not [v for v in model.vcls if "other" in v.name]


def test_a_label_waits_for_the_last_request_of_an_older_root() -> None:
    model = Model()
    a, b = want(A1), want(A1, service="other")
    model.converge(a, b)
    model.busy = {plan.active(model.look) or ""}
    model.converge(a)
    assert "svc-other" in plan.targets(model.look)
    assert model.ack(a).applied == 1, "the service that stays is not disturbed"
    model.vcls = [v for v in model.vcls if v.status != "discarded"]
    model.converge(a)
    assert not [v for v in model.vcls if "other" in v.name]


def test_an_operators_own_vcl_is_left_alone() -> None:
    model = Model()
    model.vcls.append(Vcl("maintenance", "available", "warm"))
    model.converge(want(A1))
    assert "maintenance" in {v.name for v in model.vcls}


def red(model: Model, w: Want, *, rostered: bool = True, dead: frozenset[str] = frozenset()) -> str | None:
    return plan.red([w], model.look, rostered=rostered, dead=dead)


def test_the_page_is_red_until_the_latest_plan_is_applied() -> None:
    model = Model()
    assert "app" in (red(model, want(A1)) or "")
    model.converge(want(A1))
    assert red(model, want(A1)) is None


def test_a_green_page_stays_green_while_a_new_plan_is_loaded_unless_the_fleet_went_on_without_this_edge() -> None:
    model = Model()
    model.converge(want(A1))
    assert red(model, want(OFFER)) is None
    assert red(model, want(OFFER), rostered=False)


def test_the_page_is_red_only_when_no_service_has_a_healthy_host() -> None:
    model = Model()
    a, b = want(A1), want(A1, service="other")
    model.converge(a, b)
    assert plan.red([a, b], model.look, rostered=True, dead=frozenset({"app"})) is None
    assert plan.red([a, b], model.look, rostered=True, dead=frozenset({"app", "other"}))
