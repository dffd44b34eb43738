"""Structured logs on stderr: the sentence first, then key=value. Call ``configure`` once, in a process's main."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    when = event.pop("timestamp")
    level = event.pop("level")
    sentence = event.pop("event")
    trace = event.pop("exception", None)
    pairs = " ".join(f"{k}={_quote(v)}" for k, v in sorted(event.items()))
    line = f"{when} {level:<7} {sentence}" + (f"  {pairs}" if pairs else "")
    return f"{line}\n{trace}" if trace else line


def _quote(value: object) -> str:
    text = str(value)
    return f'"{text}"' if not text or " " in text else text


def configure(level: int = logging.INFO, **bound: str) -> None:
    """``bound`` are the pairs that every line of this process carries, e.g. ``edge="edge-1"``."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("kazoo").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)


def get() -> Any:
    """A logger; ``log.info("sentence", key=value)``."""
    return structlog.get_logger()
