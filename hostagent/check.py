"""Is a pool what it should be? Asks every process over its own socket, then nginx through the slot's public port.

Decides nothing about what follows from the answer, and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from fleet.loop import Trouble
from fleet.model import ServiceConfig
from hostagent.http import Answer, NoAnswer, get
from hostagent.spec import ProcessSpec, SlotSpec
from hostagent.supervisor import Process

#: Seconds for one answer, and between two questions.
_ANSWER = 5.0
_PAUSE = 0.1


class NotGood(Trouble):
    """The pool did not become good in time. Says which process and why; ``program`` is whose log may tell more."""

    def __init__(self, sentence: str, program: str) -> None:
        super().__init__(sentence)
        self.program = program


def fault(answer: Answer, build: str) -> str | None:
    """What is wrong with a health answer; None where it is good."""
    if not 200 <= answer.status < 300:
        return f"HTTP {answer.status}"
    try:
        said = json.loads(answer.body)
    except ValueError:
        return None  # any body will do; only one that names a build must name the right one
    if isinstance(said, dict) and "build" in said and said["build"] != build:
        return f"it says that it is {said['build']!r}"
    return None


class Pool:
    """The check of one pool, process by process, until enough of them are good or the time is up."""

    def __init__(
        self,
        spec: SlotSpec,
        config: ServiceConfig,
        *,
        look: Callable[[], tuple[Process, ...]],
        check: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._config = config
        self._look = look
        self._check = check
        self._good = {p.name: 0 for p in spec.pool}
        self._warm: set[str] = set()
        self._why: dict[str, str] = {}

    def wait(self) -> None:
        """Return when the pool may be registered. Raises NotGood, or what ``check`` raises."""
        deadline = time.monotonic() + self._config.pool.start_seconds
        while True:
            self._check()
            states = {p.name.rpartition(".")[2]: p for p in self._look()}
            waiting = [p for p in self._spec.pool if not self._ready(p, states)]
            front = _state(states, "nginx")
            if not waiting and front == "RUNNING":
                return
            outstanding = [_state(states, p.name) for p in waiting] + [front] * (front != "RUNNING")
            if time.monotonic() > deadline or all(s == "FATAL" for s in outstanding):
                total = len(self._spec.pool)
                if front == "RUNNING" and self._config.health.enough(total - len(waiting), total):
                    return
                raise NotGood(self._sentence(waiting, front), waiting[0].name if waiting else "nginx")
            time.sleep(_PAUSE)

    def _ready(self, p: ProcessSpec, states: dict[str, Process]) -> bool:
        if self._good[p.name] < self._config.health.good:
            self._ask(p)
        process = states.get(p.name)
        if process is None or process.state != "RUNNING":
            self._why.setdefault(p.name, "it does not run")
            if process is not None and process.state in ("BACKOFF", "FATAL"):
                self._why[p.name] = "it exits at once"
                self._good[p.name] = 0
            return False
        return self._good[p.name] >= self._config.health.good

    def _ask(self, p: ProcessSpec) -> None:
        try:
            if p.name not in self._warm:
                for path in self._config.health.warm:
                    get(p.endpoint, path, max(_ANSWER, self._config.response_seconds))
                if self._config.health.warm:
                    self._warm.add(p.name)
            wrong = fault(get(p.endpoint, self._config.health.path, _ANSWER), self._spec.build)
        except NoAnswer as e:
            wrong = str(e)
        if wrong:
            self._why[p.name] = wrong
            self._good[p.name] = 0
        else:
            self._good[p.name] += 1

    def _sentence(self, waiting: list[ProcessSpec], front: str) -> str:
        spec = self._spec
        if not waiting:
            return f"nginx of {spec.service} {spec.build} in slot {spec.slot} does not run ({front})"
        first = waiting[0]
        return (
            f"{len(waiting)} of {len(spec.pool)} processes of {spec.service} {spec.build} in slot {spec.slot} are not "
            f"good: {first.name}: {self._why.get(first.name, 'no good answer yet')}"
        )


def _state(states: dict[str, Process], name: str) -> str:
    return states[name].state if name in states else "MISSING"


def stamp(spec: SlotSpec, config: ServiceConfig, host: str, check: Callable[[], None]) -> None:
    """One request through the public port must come from this slot of this host. Raises NotGood, or as ``check`` does.

    nginx was started with the pool and may come up after it: it has as long as a process.
    """
    deadline = time.monotonic() + config.pool.start_seconds
    while True:
        check()
        try:
            answer = get(spec.endpoint, config.health.path, _ANSWER)
            break
        except NoAnswer as e:
            if time.monotonic() > deadline:
                raise NotGood(f"nginx on {spec.endpoint}: {e}", "nginx") from e
        time.sleep(_PAUSE)
    version, by = answer.headers.get("x-served-version"), answer.headers.get("x-served-by")
    if (version, by) != (spec.build, host):
        raise NotGood(
            f"{spec.endpoint} answers as version {version} of host {by}, not as {spec.build} of {host}: "
            "does something else listen there?",
            "nginx",
        )
    if wrong := fault(answer, spec.build):
        raise NotGood(f"{spec.build} through nginx on {spec.endpoint}: {wrong}", "nginx")


def tail(log: Path, lines: int = 3, size: int = 4096) -> str:
    """The last lines of a program's log that are not the same, for people, on any terminal."""
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - size))
            found = f.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    plain = ("".join(c if c.isprintable() else " " for c in line).strip() for line in found)
    # Of what is said again and again, the last time is meant.
    last = list(dict.fromkeys(reversed([line for line in plain if line])))[:lines]
    return " | ".join(reversed(last))
