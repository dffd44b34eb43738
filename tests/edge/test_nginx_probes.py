"""How an nginx edge finds out who is well: real answers of real hosts."""

from __future__ import annotations

import contextlib

import pytest

from edge.nginx.probes import Probes, Target
from tests.conftest import eventually
from tests.edge.bed import Backend


@pytest.mark.parametrize(("trusted", "found"), [(True, [True, False]), (False, [False])])
def test_one_bad_answer_takes_away_no_host_that_served_before(trusted: bool, found: list[bool]) -> None:
    with contextlib.closing(Backend("A")) as backend:
        backend.sick = True
        target = Target("app", "A", "127.0.0.1", backend.port, "/healthz", 0.05, 5.0)
        seen: list[bool] = []
        probes = Probes(lambda: seen.append(probes.health()[target]))
        probes.start()
        try:
            probes.ask([target], [target] if trusted else [])
            eventually("it is sick", lambda: seen[-1:] == [False])
            assert seen == found
            backend.sick = False
            eventually("it is well again", lambda: seen[-1])
        finally:
            probes.stop()
