"""What clients are promised, in whatever order edges apply plans: one forced move a rollout, no document goes back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from barrier import plans
from fleet.model import Plan
from tests.table import reference, roaming
from tests.table.reference import Choice, Cookie, Service
from tests.table.roaming import Broken, Fleet, Step

SEED = 1 if os.environ.get("CI") else random.SystemRandom().randrange(10**6)


def fleets(count: int) -> None:
    for n in range(count):
        try:
            Fleet(random.Random(f"{SEED}/{n}"), edges=4, clients=6).run(rollouts=5)
        except Broken as e:
            raise Broken(f"fleet {n} of seed {SEED}: {e}") from None


def test_clients_are_moved_once_and_never_go_back() -> None:
    fleets(40)


def deaf_to_newer_cookies(service: Service, cookie: Cookie | None, drawn: int) -> Choice:
    return _document(service, cookie and replace(cookie, generation=0), drawn)


def deaf_to_buckets(service: Service, cookie: Cookie | None, drawn: int) -> Choice:
    return _document(service, cookie and replace(cookie, bucket=_chance.randrange(reference.BUCKETS)), drawn)


def forgetful(plan: Plan, version: str) -> Choice:
    """Only the default counts as served."""
    assert plan.default is not None
    return _exact(plan, version) if version == plan.default else Choice(plan.default, "retired", "forced", version)


def withdrawn_at_once(plan: Plan, build: str) -> Iterator[Step]:
    """As ``abort``, but who has it is moved back too."""
    yield Step(plans.withdraw(plans.ramp(plan, build, None), [build]))


_document, _exact, _chance = reference._document, reference._exact, random.Random(1)


@pytest.mark.parametrize(
    ("module", "name", "wrong", "said"),
    [
        (reference, "_document", deaf_to_newer_cookies, "a document went back"),
        (reference, "_document", deaf_to_buckets, "a ramp lost a client that it had"),
        (reference, "_exact", forgetful, "moved by force twice|a document went back"),
        (roaming, "abort", withdrawn_at_once, "moved by force twice"),
    ],
    ids=["newer", "bucket", "served", "abort"],
)
def test_each_promise_can_be_broken(
    module: object, name: str, wrong: Callable[..., object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(Broken, match=said):
        fleets(40)
