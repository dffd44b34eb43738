"""Old rollouts go; what somebody may still need stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from barrier.pruning import BATCH, EVERY, Pruner
from fleet import paths
from fleet.model import Plan, Rollout, RolloutState
from fleet.zk import Create, Set, ZooKeeper
from pipeline.client import Client
from tests.barrier.conftest import Fleet
from tests.barrier.http import TOKENS, Http
from tests.conftest import eventually


@pytest.fixture
def past(fleet: Fleet) -> Fleet:
    """C is the default and B is served beside it; 90 rollouts of A are over."""
    fleet.configure()
    write(fleet, range(1, 91), "A")
    plan(fleet, Plan(epoch=9, default="C", serving=("C", "B")))
    fleet.store.zk.create(paths.FENCE, b"")
    return fleet


def write(fleet: Fleet, numbers: range, build: str, **fields: object) -> None:
    old = {"state": RolloutState.ABORTED, "done": True} | fields
    wanted = (fleet.wanted(build, **(old | {"number": n})) for n in numbers)
    fleet.store.zk.commit([Create(paths.rollout("shop", r.number), r.encode()) for r in wanted])


def plan(fleet: Fleet, now: Plan) -> None:
    fleet.store.zk.commit([Set(paths.plan("shop"), now.encode(), -1)])


def test_the_last_ones_stay(past: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    now = [0.0]
    pruner = Pruner(connect(), monotonic=lambda: now[0], rollouts=20)
    assert pruner.prune(0, ["shop"])
    assert past.store.numbers("shop") == list(range(1 + BATCH, 91))
    assert not pruner.prune(0, ["shop"])
    assert past.store.numbers("shop") == list(range(71, 91))
    assert past.begin("B").number == 91, "numbers go on"
    now[0] += EVERY
    pruner.prune(0, ["shop", "gone"])
    assert past.store.numbers("shop") == list(range(72, 92))


def test_what_can_be_rolled_back_and_what_is_active_stay(past: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    zk = past.store.zk
    special: dict[int, dict[str, object]] = {
        2: {"build": "C", "state": RolloutState.SWITCHED, "previous": "B"},
        3: {"build": "C", "state": RolloutState.SWITCHED, "previous": "B"},
        4: {"build": "C", "state": RolloutState.SWITCHED},
        5: {"done": False, "state": RolloutState.PAUSED},
        7: {"request": {"verb": "rollback", "by": "ann"}},
    }
    for number, changes in special.items():
        old = past.wanted("A", number=number, done=True).model_dump() | changes
        zk.set(paths.rollout("shop", number), Rollout.model_validate(old).encode(), 0)
    zk.set(paths.rollout("shop", 9), b"nonsense", 0)
    for _ in range(3):
        Pruner(connect(), rollouts=10).prune(0, ["shop"])
    assert past.store.numbers("shop") == [3, 5, 7, 9, *range(81, 91)]
    plan(past, Plan(epoch=10, default="D", serving=("D", "C")))
    Pruner(connect(), rollouts=10).prune(0, ["shop"])
    assert past.store.numbers("shop") == [5, 7, 9, *range(81, 91)], "the next default is there"


def test_a_deposed_leader_throws_nothing_away(past: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    zk = past.store.zk
    zk.set(paths.FENCE, b"another", 0)
    Pruner(connect(), rollouts=10).prune(0, ["shop"])
    assert len(past.store.numbers("shop")) == 90
    zk.set(paths.plan("shop"), b"nonsense", 1)
    Pruner(connect(), rollouts=10).prune(1, ["shop"])
    assert len(past.store.numbers("shop")) == 90, "and nothing is decided by a plan that cannot be read"


def test_a_rollback_still_finds_its_rollout(small: Fleet) -> None:
    small.deploy("A")
    small.deploy("B")
    write(small, range(3, 9), "C")
    replica = small.replicas[0]
    replica.controller._pruner = Pruner(replica.zk, rollouts=2)
    replica.wake()
    eventually("the old ones to go", lambda: small.store.numbers("shop") == [2, 7, 8])
    small.ask(2, "rollback")
    small.until(2, "rolled_back", done=True)
    assert small.store.plan("shop").default == "A"


def test_the_lock_protects_its_rollout(past: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    past.store.zk.create(paths.active_rollout("shop"), b"5")
    for _ in range(2):
        Pruner(connect(), rollouts=10).prune(0, ["shop"])
    assert past.store.numbers("shop") == [5, *range(81, 91)]


def test_the_way_back_is_found_behind_many_failures(past: Fleet, http: Http) -> None:
    old = past.wanted("C", number=2, done=True, state=RolloutState.SWITCHED, previous="B")
    past.store.zk.set(paths.rollout("shop", 2), old.encode(), 0)
    with Client([http.url], TOKENS["read"]) as client:
        found = client.to_roll_back("shop")
        assert found is not None
        assert found.number == 2
        active = past.begin("D").number
        found = client.to_roll_back("shop")
        assert found is not None
        assert found.number == active
