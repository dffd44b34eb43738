"""Other programs, run to their end under a deadline. Never a shell."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """How a program ended. ``code`` is negative for a signal, as subprocess has it."""

    code: int
    output: str


class ProgramTimeout(Exception):
    """The program was still running at its deadline and was killed with its process group."""


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run ``argv`` for at most ``deadline`` seconds; stdout and stderr come back merged, last 64 KiB.

    Raises FileNotFoundError where there is no such program and ProgramTimeout at the deadline.
    """
    with subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        try:
            out, _ = child.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise ProgramTimeout(f"{argv[0]} was still running after {deadline:g} s and was killed") from None
    return Result(child.returncode, out[-65536:].decode(errors="replace"))
