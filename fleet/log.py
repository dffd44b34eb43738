"""Structured logs on stderr: the sentence first, then key=value. Owns the format of a line, both ways.

Call ``configure`` once, in a process's main. A line about a service carries the rollout that the service's plan, or
what its hosts are to run, came from: whoever reads that calls ``belongs``, and every line with ``service=`` has it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: Service -> rollout. Ids of rollouts are each service's own. Written by one thread, read by all.
_rollouts: dict[str, int] = {}

_PLAIN = re.compile(r"[^\s\"=\\]+")
_LINE = re.compile(r"(?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) (?P<level>[a-z]+) +(?P<rest>.*)", re.DOTALL)
_PAIR = re.compile(r"(?P<key>[A-Za-z_]\w*)=(?P<value>\"(?:[^\"\\]|\\.)*\"|[^\s\"]+)")


def belongs(service: str, rollout: int | None) -> None:
    """From now on what is said of ``service`` belongs to ``rollout``; to none where that is None."""
    if rollout is None:
        _rollouts.pop(service, None)
    else:
        _rollouts[service] = rollout


def _add_rollout(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    rollout = _rollouts.get(str(event.get("service")))
    if rollout is not None:
        event.setdefault("rollout", rollout)
    return event


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    when = event.pop("timestamp")
    level = event.pop("level")
    # Some words come from outside: none of them may look like pairs, or like the beginning of another line.
    sentence = re.sub(r" {2,}", " ", str(event.pop("event"))).replace("\r", "").strip() or "-"
    sentence = sentence.replace("\n", "\n    ")
    trace = event.pop("exception", "").replace("\n", "\n    ")
    pairs = " ".join(f"{k}={_quote(v)}" for k, v in sorted(event.items()) if v is not None)
    head, newline, more = sentence.partition("\n")
    line = f"{when} {level:<7} {head}" + (f"  {pairs}" if pairs else "") + newline + more
    return f"{line}\n    {trace}" if trace else line


def _quote(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Line:
    """One line as it was written. ``at`` is the writer's wall clock."""

    at: str
    level: str
    sentence: str
    pairs: Mapping[str, str]


def parse(text: str) -> Line | None:
    """None for what ``configure`` has not written."""
    found = _LINE.fullmatch(text.rstrip("\n"))
    if found is None:
        return None
    head = found["rest"].partition("\n")[0]
    sentence, _, said = head.partition("  ")
    pairs = {m["key"]: _unquote(m["value"]) for m in _PAIR.finditer(said)}
    return Line(found["at"], found["level"], sentence, pairs)


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


class Lossy:
    """``sys.stderr``; what cannot be written (a full disk, no reader) is lost: nobody ends for its log."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(level: int = logging.INFO, **bound: str) -> None:
    """``bound`` are the pairs that every line of this process carries, e.g. ``edge="edge-1"``."""
    stderr = cast("TextIO", Lossy())
    logging.basicConfig(stream=stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("kazoo").setLevel(logging.ERROR)

    def _bind(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in bound.items():  # not contextvars: those of the main thread are no other thread's
            event.setdefault(key, value)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _bind,
            _add_rollout,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )


def get() -> Any:
    """A logger; ``log.info("sentence", key=value)``."""
    return structlog.get_logger()
