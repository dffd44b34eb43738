"""Places where the agent may be told to die as by ``kill -9``, so that a test can walk through all of them.

Off unless the agent's environment names one place: ``PINRAIL_HOST_FAILPOINT=SERVICE:BUILD:POINT``. A build's points in
the order in which an install comes by them are in ``tests/hostagent/test_crashes.py``. Does nothing else, ever.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "PINRAIL_HOST_FAILPOINT"


def at(service: str, build: str, point: str) -> None:
    if os.environ.get(VARIABLE) == f"{service}:{build}:{point}":
        os.kill(os.getpid(), signal.SIGKILL)
