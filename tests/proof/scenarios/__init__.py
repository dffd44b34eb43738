"""Stories, told to a world: what operators do and what goes wrong, one after the other.

Each is played as it is (``test_scenarios``), with guards broken (``test_mutations``), with the leader killed
at each of its writes (``test_kills``), and written down for people (``transcripts``).
"""

from __future__ import annotations

from tests.proof.scenarios import edges, hosts, leaders, releases, second_thoughts
from tests.proof.scenarios.telling import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario", "edges", "hosts", "leaders", "releases", "second_thoughts"]
