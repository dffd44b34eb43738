"""What all that runs containers needs first."""

from __future__ import annotations

import pytest

from bench import engine


@pytest.fixture(scope="session")
def images() -> None:
    """Of this checkout. Skips whoever asks for them where no engine answers."""
    if why := engine.why_not():
        pytest.skip(why)
    engine.build()
