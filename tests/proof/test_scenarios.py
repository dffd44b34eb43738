"""Every scenario as it is: no promise breaks on the way, and it comes to its end."""

from __future__ import annotations

import pytest

from tests.proof.edges import models
from tests.proof.scenarios import SCENARIOS, Scenario


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_it_keeps_every_promise(scenario: Scenario) -> None:
    with models():
        world = scenario.world()
        scenario.play(world)
        assert world.quiet() is None
