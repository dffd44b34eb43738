"""One fleet for all of the matrix, under load from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fleet import Fleet
from tests.local.conftest import left_of


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("faults") / "fleet"
    made = Fleet(directory)
    yield made
    made.close()
    assert left_of(directory) == []


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test begins and ends with a fleet of which nothing is hurt; what one leaves behind another does not suffer."""
    fleet: Fleet = request.getfixturevalue("fleet")
    yield
    fleet.mend()
