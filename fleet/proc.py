"""Other programs, run to their end under a deadline. Never a shell."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds between two calls of ``check``.
_CHECK = 0.2
#: Bytes of output that are kept.
_KEPT = 65536


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
    check: Callable[[], None] | None = None,
) -> Result:
    """Run ``argv`` for at most ``deadline`` seconds; stdout and stderr come back merged, last 64 KiB.

    It has ended when its output has: what it leaves behind with that output open counts. ``check`` is called a few
    times a second; what it raises ends the program, and is raised.
    Raises FileNotFoundError where there is no such program and ProgramTimeout at the deadline.
    """
    end = time.monotonic() + deadline
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
            out = _output(child, end, check)
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(child)
            raise ProgramTimeout(f"{argv[0]} was still running after {deadline:g} s and was killed") from None
        except BaseException:
            _kill(child)
            raise
    return Result(child.returncode, out.decode(errors="replace"))


def _output(child: subprocess.Popen[bytes], end: float, check: Callable[[], None] | None) -> bytes:
    """The last of it, once there is no more. Raises subprocess.TimeoutExpired at ``end``, or what ``check`` raises."""
    assert child.stdout is not None  # noqa: S101
    tail = b""
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise subprocess.TimeoutExpired(child.args, 0)
        if select.select([child.stdout], [], [], left if check is None else min(_CHECK, left))[0]:
            chunk = os.read(child.stdout.fileno(), _KEPT)
            if not chunk:
                return tail
            tail = (tail + chunk)[-_KEPT:]
        if check is not None:
            check()


def _kill(child: subprocess.Popen[bytes]) -> None:
    """With its process group. What has left that group may hold the output open for ever: nobody waits for that."""
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
