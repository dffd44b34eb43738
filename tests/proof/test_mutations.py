"""No guard is there for nothing: each one broken, a promise breaks where it should."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from edge import render
from edge.render import Rendered
from tests.proof.edges import models
from tests.proof.mutations import MUTATIONS, Mutation
from tests.proof.promises import Broken
from tests.proof.scenarios import SCENARIOS
from tests.vcl import test_vtc

INVARIANTS = tuple(f"I{n}" for n in range(1, 14))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.breaks}: {m.name}")
def test_a_broken_guard_is_noticed(mutation: Mutation) -> None:
    scenario = SCENARIOS[mutation.scenario]
    with models():
        world = scenario.world()
        with mutation.applied(), pytest.raises(Broken) as found:
            scenario.play(world)
    assert mutation.breaks in (found.value.promise, "I8"), found.value


def test_a_template_without_attestation_is_noticed(tmp_path: Path) -> None:
    """I2 is kept by the template alone, and so it is Varnish's own test that notices."""
    original = render.service

    def careless(*args: object) -> Rendered:
        made = original(*args)  # type: ignore[arg-type]
        guard = "beresp.http.x-served-version != bereq.http.x-pinrail-version"
        assert guard in made.text
        return Rendered(made.name, made.text.replace(guard, 'beresp.http.x-served-version == "nobody"'), made.backends)

    file = next(f for f in test_vtc.FILES if f.stem == "10_attestation")
    with mock.patch.object(render, "service", careless), pytest.raises(pytest.fail.Exception, match="10_attestation"):
        test_vtc.test_vtc(file, tmp_path)


def test_every_invariant_has_a_guard_that_is_broken_here() -> None:
    assert {m.breaks for m in MUTATIONS} | {"I2"} >= set(INVARIANTS)
