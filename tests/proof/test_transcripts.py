"""The scenarios, written down. ``PINRAIL_WRITE_DOCS=1`` writes them anew; who does reads the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.proof import transcript
from tests.proof.edges import models
from tests.proof.scenarios import SCENARIOS

HERE = Path(__file__).parent / "transcripts"
KEPT = (
    *("first_deploy", "third_release", "ramp", "pause_and_resume", "stall_and_evict", "deposed_leader"),
    *("abort_withdrawing", "abort_installing", "abort_offering", "abort_ramping"),
    *("rollback_withdrawing", "rollback_installing", "rollback_offering", "rollback_ramping"),
    *("rollback_switched", "rollback_done", "failed_hosts_resumed", "failed_hosts_aborted", "build_missing"),
    *("redeploy", "host_joins", "host_vanishes", "in_place", "compiler_fails", "driven_by_hand"),
    *("queued", "preview", "ramp_by_verdicts", "dies_after_its_turn", "vanishes_after_its_turn"),
)


@pytest.mark.parametrize("name", KEPT)
def test_it_reads_as_it_is_kept(name: str) -> None:
    with models():
        written = transcript.write(SCENARIOS[name])
    file = HERE / f"{name}.txt"
    if os.environ.get("PINRAIL_WRITE_DOCS"):
        HERE.mkdir(exist_ok=True)
        file.write_text(written)
    assert file.exists() and file.read_text() == written, f"read the diff, then: PINRAIL_WRITE_DOCS=1 pytest {__file__}"


def test_nothing_is_kept_that_nobody_writes() -> None:
    assert {f.stem for f in HERE.glob("*.txt")} == set(KEPT)
