"""A server and its agent in one container, as systemd would run them side by side on a machine.

The agent may end as often as it likes: another one is started, and the server goes on serving. When the server ends, so
does the container, and whoever runs it starts it anew. TERM ends the agent first, then the server.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

#: Seconds that each gets from TERM to KILL, and between an agent and the next.
_AGENT_ENDS, _SERVER_ENDS, _PAUSE = 10.0, 20.0, 1.0
#: An agent that refuses its configuration this soon will never take it.
_AT_ONCE = 10.0
_USAGE = 2


def run(server: Sequence[str], agent: Sequence[str], before_end: Callable[[], float] = lambda: 0.0) -> int:
    """The container's exit code. ``before_end`` is called between the agent's end and the server's, after a TERM only;
    the server gets that many seconds more."""
    return asyncio.run(_Pair(server, agent, before_end).run())


class _Pair:
    def __init__(self, server: Sequence[str], agent: Sequence[str], before_end: Callable[[], float]) -> None:
        self._argv = server, agent
        self._before_end = before_end
        self._told = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        server = await asyncio.create_subprocess_exec(*self._argv[0])
        ended = asyncio.ensure_future(server.wait())
        told = asyncio.ensure_future(self._told.wait())
        code = 0
        try:
            code = await self._tend(ended, told)
            if told.done() and not ended.done():
                await asyncio.sleep(await asyncio.to_thread(self._before_end))
        finally:
            await _end(server, _SERVER_ENDS)
            for waiting in (ended, told):
                waiting.cancel()
        return code

    async def _tend(self, ended: asyncio.Future[int], told: asyncio.Future[Literal[True]]) -> int:
        """Until the server ends or somebody says so; there is an agent all that time, but for a pause between two."""
        while not (ended.done() or told.done()):
            began = time.monotonic()
            agent = await asyncio.create_subprocess_exec(*self._argv[1])
            gone = asyncio.ensure_future(agent.wait())
            try:
                await asyncio.wait((ended, told, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(agent, _AGENT_ENDS)
            code = await gone
            if ended.done() or told.done():
                break
            if code == _USAGE and time.monotonic() - began < _AT_ONCE:
                return code  # it has said why
            sys.stderr.write(f"pinrail: the agent ended with {code}; another one is started\n")
            await asyncio.wait((ended, told), timeout=_PAUSE, return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            return 0
        sys.stderr.write(f"pinrail: the server ended by itself, with {ended.result()}\n")
        return ended.result() if ended.result() > 0 else 1


async def _end(process: Process, seconds: float) -> None:
    """TERM, and KILL where that does not do. Nothing where it has ended."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
