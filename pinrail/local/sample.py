"""Publishing the sample service's builds and deploying the first, as ``pinrail up`` does."""

from __future__ import annotations

from pinrail.local.progress import Progress
from pinrail.local.state import FleetState


def serve(fleet: FleetState, progress: Progress) -> None:
    raise NotImplementedError
