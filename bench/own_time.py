"""What a rollout takes beside installing: real parts, a local fleet as ``pinrail up`` makes it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, Samples
from bench.servers import Missing
from fleet.model import RolloutState
from pinrail.errors import CommandError
from pinrail.local import sample, up
from pinrail.local.progress import Progress
from pipeline.client import Client

EDGES, HOSTS = 2, 3
_NAME = f"rollout less installing, {EDGES} edges and {HOSTS} hosts"
#: The first of them is deployed already.
_BUILDS = ("b2", "c3", "a1")


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    try:
        state = up.up(directory, up.Wanted(edges=EDGES, hosts=HOSTS), Progress())[0]
    except (CommandError, Missing) as e:
        yield Row(_NAME, "not measured", str(e))
        return
    try:
        with Client([b.url for b in state.barrier], state.token.admin) as api:
            took = [_own(api, build) for build in itertools.islice(itertools.cycle(_BUILDS), rounds)]
    finally:
        up.down(directory, keep=False)
    yield Row(_NAME, f"{Samples(tuple(took)).text('.2f')} s", "goal: ≤ 2 s")


def _own(api: Client, build: str) -> float:
    """Seconds from the call to the end, but for those in which hosts installed."""
    began = time.monotonic()
    number = api.deploy(sample.SERVICE, build).number
    rollout = api.wait_rollout(sample.SERVICE, number, seconds=300)
    seconds = time.monotonic() - began
    if rollout.state is not RolloutState.SWITCHED:
        raise RuntimeError(f"rollout {number}: {rollout.history[-1].text}")
    after = (e for e in rollout.history if e.state is RolloutState.OFFERING)
    return seconds - (next(after).seconds or 0.0)
