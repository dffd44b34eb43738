"""From an exception to one line on stderr and an exit code: 1 failed, 2 usage (the operator's), 3 out of time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fleet.config import BadConfig
from fleet.loop import Trouble
from fleet.names import BadName


class CommandError(Exception):
    """Something a person can act on. ``code`` is the exit code."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def fail(sentence: str, code: int) -> typer.Exit:
    typer.echo(f"pinrail: {sentence}", err=True)
    return typer.Exit(code)


@contextmanager
def reported() -> Iterator[None]:
    """Wrap a command's body: what is the operator's or the world's fault is said in one line, ours is a traceback."""
    try:
        yield
    except CommandError as e:
        raise fail(str(e), e.code) from e
    except (BadConfig, BadName) as e:
        raise fail(str(e), 2) from e
    except Trouble as e:
        raise fail(str(e), 1) from e
