"""The audit trail: every change leaves one entry, and the oldest ones go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from barrier.pruning import BATCH, EVERY, Pruner
from barrier.store import audit, rollouts, services
from barrier.store.audit import By, Entry
from fleet import paths
from fleet.model import EdgeInfo, ServiceConfig
from fleet.zk import Conflict, Create, ZooKeeper
from tests.barrier.conftest import ANN, Fleet
from tests.barrier.http import CONFIG, Http
from tests.conftest import eventually


def trail(http: Http, query: str = "") -> list[dict[str, Any]]:
    answer = http("GET", f"/v1/audit{query}", role="read")
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def facts(entry: dict[str, Any], *keys: str) -> tuple[object, ...]:
    return tuple(entry[k] for k in keys)


def test_every_change_leaves_one_entry(http: Http, small: Fleet) -> None:
    assert [e["what"] for e in trail(http)] == ["makes shop"]
    changed = CONFIG | {"keep": 7, "waves": {"concurrency": 1}}
    http("PUT", "/v1/services/shop/config?reason=more", role="admin", body=changed)
    assert facts(trail(http)[0], "by", "role", "what", "why", "service", "epoch_before", "epoch_after") == (
        *("adminer", "admin", "configures keep of shop", "more", "shop", 1, 1),
    )
    small.deploy("A")
    small.deploy("B")
    key = {"idempotency-key": "job-7"}
    for _ in range(2):  # the second one is the first one
        begun = http("POST", "/v1/services/shop/rollouts", body={"build": "C", "reason": "new"}, headers=key)
        small.until(3, "switched", done=True)
    assert begun.status_code == 200
    assert [e["rollout"] for e in trail(http) if e["action"] == "deploy"] == [3, 2, 1]
    assert facts(trail(http)[0], "by", "version", "why", "rollout") == ("deployer", "C", "new", 3)
    assert trail(http)[0]["epoch_before"] < small.store.plan("shop").epoch

    epoch = small.store.plan("shop").epoch
    http("POST", "/v1/services/shop/rollouts/3/rollback", body={"reason": "slow"})
    small.until(3, "rolled_back", done=True)
    what = ("action", "rollout", "why", "epoch_before", "epoch_after")
    back, deployed = trail(http)[:2]
    assert facts(back, *what) == ("rollback", 3, "slow", epoch, small.store.plan("shop").epoch)
    assert facts(deployed, "action", "epoch_after") == ("deploy", epoch)
    assert trail(http, "?last=1") == [back]

    for operation in ("withdraw", "offer", "stage"):
        before = small.store.plan("shop").epoch
        http("POST", f"/v1/services/shop/plan/{operation}", body={"version": "C", "reason": "by hand"})
        newest = trail(http, "?last=1")
        assert [facts(e, "action", "version", "why") for e in newest] == [(operation, "C", "by hand")]
        assert facts(newest[0], "epoch_before", "epoch_after") == (before, before + 1)

    small.store.zk.create(paths.rostered("edge-9"), EdgeInfo(name="edge-9").encode())
    for status in (200, 404):
        assert http("POST", "/v1/edges/edge-9/evict", body={"reason": "sold"}).status_code == status
    assert facts(trail(http)[0], "action", "edge", "why", "service") == ("evict", "edge-9", "sold", None)
    assert trail(http)[1]["action"] == "stage", "the refused one left nothing"
    numbers = [e["number"] for e in trail(http)]
    assert numbers == sorted(numbers, reverse=True)
    assert {e["service"] for e in trail(http, "?service=shop")} == {"shop"}
    assert len(trail(http, "?service=shop&last=3")) == 3


def test_an_entry_leads_to_where_the_next_one_about_its_rollout_begins() -> None:
    def entry(action: str, rollout: int | None, before: int | None, after: int | None = None) -> Entry:
        facts = {"service": "shop", "rollout": rollout, "epoch_before": before, "epoch_after": after}
        return Entry.model_validate({"action": action, "what": action} | facts)

    newest_first = [
        entry("rollback", 2, 9),
        entry("configure", None, 8, 8),
        entry("resume", 2, 7),
        entry("pause", 2, 7),
        entry("deploy", 2, 5),
        entry("deploy", 1, 1),
    ]
    told = audit.led_to(newest_first, {("shop", 2): 10})
    assert [(e.action, e.epoch_after) for e in told] == [
        *(("rollback", 10), ("configure", 8), ("resume", 9), ("pause", 7), ("deploy", 7)),
        ("deploy", None),  # the rollout is not kept any more
    ]


def test_what_was_refused_is_no_change(http: Http, fleet: Fleet) -> None:
    fleet.configure()
    number = fleet.begin("A").number
    before = trail(http)
    path = "/v1/services/shop"
    assert http("POST", f"{path}/rollouts", body={"build": "B"}).status_code == 409
    assert http("POST", f"{path}/rollouts/{number}/resume").status_code == 409
    assert http("POST", f"{path}/plan/withdraw", body={"version": "A"}).status_code == 409
    assert http("PUT", f"{path}/config", role="admin", body={"strategy": "inplace"}).status_code == 409
    assert http("DELETE", path, role="admin").status_code == 409
    assert http("PUT", f"{path}/config", role="deploy", body=CONFIG).status_code == 403
    assert http("POST", "/v1/edges/edge-7/evict", body={"reason": "gone"}).status_code == 404
    assert trail(http) == before
    for query in ("?last=0", "?last=1001", "?service=NO", "?last=x"):
        assert http("GET", f"/v1/audit{query}", role="read").status_code == 422
    assert http("GET", "/v1/audit", token="guess").status_code == 401


def test_the_trail_of_a_service_outlives_it(http: Http) -> None:
    http("PUT", "/v1/services/shop/config", role="admin", body=CONFIG)
    other = CONFIG | {"match": [{"host": "other.example"}]}
    http("PUT", "/v1/services/other/config", role="admin", body=other)
    http("DELETE", "/v1/services/shop?reason=sold", role="admin")
    gone, made = trail(http, "?service=shop")
    assert facts(gone, "action", "why", "epoch_before", "epoch_after") == ("remove", "sold", 1, None)
    assert facts(made, "what", "epoch_before", "epoch_after") == ("makes shop", None, 1)


def test_a_change_that_failed_leaves_none(fleet: Fleet) -> None:
    fleet.configure()
    zk = fleet.store.zk
    there = audit.names(zk)
    with pytest.raises(Conflict):
        audit.commit(zk, [Create(paths.config("shop"), b"")], ANN, "configure", "makes shop")
    assert audit.names(zk) == there


def test_an_entry_that_cannot_be_read_hides_no_other(fleet: Fleet) -> None:
    fleet.configure()
    zk = fleet.store.zk
    zk.commit([Create(f"{paths.AUDIT}/{paths.AUDIT_PREFIX}", b"nonsense", sequence=True)])
    zk.create(f"{paths.AUDIT}/else", b"not one of ours")
    services.configure(fleet.store, "shop", ServiceConfig(), By("bob", "admin"))
    actions = [e.action for e in audit.last(zk, 10, lambda _: True)]
    assert actions == ["configure", "unreadable", "configure"]


def test_a_plan_that_cannot_be_read_hinders_no_configuration(fleet: Fleet) -> None:
    fleet.configure()
    fleet.store.zk.set(paths.plan("shop"), b"nonsense", 0)
    assert not services.configure(fleet.store, "shop", ServiceConfig(keep=9), ANN)
    [entry] = audit.last(fleet.store.zk, 1, lambda _: True)
    assert (entry.what.startswith("configures "), entry.epoch_before, entry.epoch_after) == (True, None, None)


def test_only_the_last_entries_are_kept(fleet: Fleet, connect: Callable[..., ZooKeeper]) -> None:
    """The leader takes the oldest, a batch at a time, and seldom where there is nothing to do."""
    zk, now = fleet.store.zk, [0.0]
    zk.create(paths.FENCE, b"")
    for n in range(BATCH + 15):
        audit.commit(zk, [], ANN, "configure", f"number {n}")
    everything = audit.names(zk)
    pruner = Pruner(connect(), monotonic=lambda: now[0], entries=10)
    assert not pruner.prune(fence=7), "a fence that is not the present one takes nothing away"
    assert audit.names(zk) == everything
    now[0] += EVERY
    assert pruner.prune(fence=0)
    assert audit.names(zk) == everything[BATCH:]
    assert not pruner.prune(fence=0)
    assert audit.names(zk) == everything[-10:]
    audit.commit(zk, [], ANN, "configure", "one more")
    pruner.prune(fence=0)
    assert len(audit.names(zk)) == 11, "not yet"
    now[0] += EVERY
    pruner.prune(fence=0)
    said = [e.what for e in audit.last(zk, 3, lambda _: True)]
    assert said == ["one more", f"number {BATCH + 14}", f"number {BATCH + 13}"]


def test_the_leader_prunes(small: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = small.replicas[0]
    monkeypatch.setattr(replica.controller, "_pruner", Pruner(replica.zk, entries=3))
    for n in range(9):
        audit.commit(small.store.zk, [], ANN, "configure", f"number {n}")
    replica.controller._pruner._next = 0.0
    replica.wake()
    eventually("three entries", lambda: len(audit.names(small.store.zk)) == 3)


def test_a_repeated_request_of_a_job_is_one_change(fleet: Fleet) -> None:
    fleet.configure()
    for made in (True, False):
        wanted = fleet.wanted("A", idempotency_key="job-1")
        assert rollouts.begin(fleet.store, wanted, ANN)[1] is made
    assert [e.action for e in audit.last(fleet.store.zk, 9, lambda _: True)] == ["deploy", "configure"]
