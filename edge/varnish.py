"""Varnish's command line interface, and the only module that talks to varnishd.

Each call has a deadline; what a call did is for the caller to read back with ``look``. ``VarnishTrouble`` is a varnishd
that does not answer, ``Refused`` one that answered no (a compile error carries the compiler's text). A timed-out load
may still succeed later: the list is the truth.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.look import Look, Vcl
from fleet.loop import Trouble

_AUTH, _OK, _TRUNCATED = 107, 200, 201
#: The manager lost its child while it asked it, or has none and knows only commands of its own.
_NO_CHILD = (400, 101)
#: Longest answer that is believed; -j lists of thousands of backends are a few MB.
_MOST = 64 * 1024 * 1024


class VarnishTrouble(Trouble):
    """varnishd is away, or did not answer in time."""


class Refused(Exception):
    """varnishd answered no. ``text`` is all it said."""

    def __init__(self, command: str, status: int, text: str) -> None:
        super().__init__(f"{command}: {text.strip()}")
        self.status = status
        self.text = text


class Varnish:
    """A connection to varnishd's CLI, made when needed and again after any trouble."""

    def __init__(self, admin: str, secret: Path, *, deadline: float = 5.0, compile_deadline: float = 120.0) -> None:
        host, _, port = admin.rpartition(":")
        self._address = (host.strip("[]") or "127.0.0.1", int(port))
        self._secret = secret
        self._deadline = deadline
        self._compile_deadline = compile_deadline
        self._socket: socket.socket | None = None
        self._rest = b""

    # -- what it says --

    def look(self) -> Look:
        """Processes and VCLs, as varnishd has them now."""
        manager, child = self._processes()
        if child is None:
            return Look(manager, None)
        return Look(manager, child, self._vcls())

    def health(self, vcl: str) -> dict[str, str]:
        """Backend -> ``healthy`` or ``sick``, of one VCL; nothing where there is no such VCL."""
        return {name: _state(facts) for name, facts in self._backends(vcl)}

    def held_sick(self, vcl: str) -> frozenset[str]:
        """The backends of one VCL that are sick because somebody ordered it (``mark``), whatever their probes find."""
        return frozenset(name for name, facts in self._backends(vcl) if facts.get("admin_health") == "sick")

    def started(self, manager: int) -> str:
        """When the manager was started, as the kernel counts; "" where its /proc is not to be seen from here."""
        try:
            return Path(f"/proc/{manager}/stat").read_text().rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return ""

    def panic(self) -> str | None:
        """The child's last panic, first line only; None where there was none."""
        try:
            text = self._ask("panic.show")
        except Refused:
            return None
        return text.strip().splitlines()[0] if text.strip() else None

    # -- what it is told --

    def load(self, name: str, text: str) -> None:
        """Compile and load, warm. Raises Refused with the compiler's text. No error where it is loaded already."""
        token = secrets.token_hex(16)
        self._command(f"vcl.inline {name} << {token}\n{text}\n{token}\n", "vcl.inline", self._compile_deadline)
        self._ask("vcl.state", name, "warm")

    def label(self, label: str, name: str) -> None:
        self._ask("vcl.label", label, name)

    def use(self, name: str) -> None:
        self._ask("vcl.use", name)

    def mark(self, vcl: str, backend: str, health: str) -> None:
        """``sick``: no new request goes there, whatever its probe says; ``auto``: the probe decides again."""
        self._ask("backend.set_health", f"{vcl}.{backend}", health)

    def discard(self, name: str) -> None:
        self._ask("vcl.discard", name)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._rest = b""

    # -- answers --

    def _backends(self, vcl: str) -> Iterator[tuple[str, dict[str, Any]]]:
        answer = self._json("backend.list", "-j", f"{vcl}.*")
        for full, facts in (answer[0] if answer else {}).items():
            name = str(full).removeprefix(f"{vcl}.")
            if facts.get("type") == "backend" and name != full:
                yield name, facts

    def _processes(self) -> tuple[int, int | None]:
        facts = self._json("pid", "-j")[0]
        child = facts.get("worker")
        return int(facts["master"]), int(child) if child else None

    def _vcls(self) -> tuple[Vcl, ...]:
        found = []
        for v in self._json("vcl.list", "-j"):
            label = v.get("label")
            found.append(
                Vcl(
                    name=str(v["name"]),
                    status=str(v["status"]),
                    temperature=str(v["temperature"]),
                    busy=int(v.get("busy", 0)),
                    target=str(label["name"]) if isinstance(label, dict) and v.get("state") == "label" else None,
                )
            )
        return tuple(found)

    def _json(self, *words: str) -> list[Any]:
        text = self._ask(*words)
        if not text.strip():
            raise VarnishTrouble(f"varnishd has no answer to {words[0]}: its child is not running")
        try:
            answer = json.loads(text)
        except ValueError as e:
            raise VarnishTrouble(f"varnishd's answer to {words[0]} is not JSON") from e
        return list(answer[3:])

    # -- the wire --

    def _ask(self, *words: str) -> str:
        line = " ".join(w if all(c.isalnum() or c in "._-*:" for c in w) else f'"{w}"' for w in words)
        return self._command(line + "\n", words[0], self._deadline)

    def _command(self, line: str, what: str, seconds: float) -> str:
        until = time.monotonic() + seconds
        try:
            status, text = self._exchange(line, until)
        except OSError as e:
            self.close()
            where = f"{self._address[0]}:{self._address[1]}"
            if isinstance(e, TimeoutError):
                raise VarnishTrouble(f"varnishd at {where} did not answer {what} within {seconds:g} s") from e
            raise VarnishTrouble(f"varnishd at {where} does not answer: {e.strerror or e}") from e
        if status == _TRUNCATED:
            raise VarnishTrouble(f"varnishd cut its answer to {what} short: raise its parameter cli_limit")
        if status in _NO_CHILD:  # no word about what was asked: a VCL that was being loaded may be a good one
            raise VarnishTrouble(f"varnishd's child went away before {what} was done: {text.strip()}")
        if status != _OK:
            raise Refused(what, status, text)
        return text

    def _exchange(self, line: str, until: float) -> tuple[int, str]:
        if self._socket is None:
            self._connect(until)
        self._send(line, until)
        return self._answer(until)

    def _connect(self, until: float) -> None:
        secret = self._secret.read_bytes()
        self._rest = b""
        self._socket = socket.create_connection(self._address, timeout=_left(until))
        status, text = self._answer(until)
        if status == _AUTH:
            challenge = text[:32].encode()
            digest = hashlib.sha256(challenge + b"\n" + secret + challenge + b"\n").hexdigest()
            self._send(f"auth {digest}\n", until)
            status, text = self._answer(until)
        if status != _OK:
            raise PermissionError(0, f"the secret in {self._secret} is not the one that varnishd was started with")
        self._send('param.set cli_limit "16m"\n', until)
        self._answer(until)

    def _send(self, line: str, until: float) -> None:
        assert self._socket is not None  # noqa: S101
        self._socket.settimeout(_left(until))
        self._socket.sendall(line.encode())

    def _answer(self, until: float) -> tuple[int, str]:
        head = self._read(13, until)
        try:
            status, length = int(head[:3]), int(head[4:12])
        except ValueError as e:
            raise ConnectionError(0, "what listens there is not varnishd's command line") from e
        if length > _MOST:
            raise ConnectionError(0, f"an answer of {length} bytes is too long")
        return status, self._read(length + 1, until)[:-1].decode(errors="replace")

    def _read(self, count: int, until: float) -> bytes:
        assert self._socket is not None  # noqa: S101
        while len(self._rest) < count:
            self._socket.settimeout(_left(until))
            got = self._socket.recv(1 << 16)
            if not got:
                raise ConnectionError(0, "it closed the connection")
            self._rest += got
        out, self._rest = self._rest[:count], self._rest[count:]
        return out


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _state(facts: dict[str, Any]) -> str:
    admin = facts.get("admin_health")
    if admin in ("healthy", "sick"):
        return str(admin)
    message = facts.get("probe_message")
    state = message[-1] if isinstance(message, list) and message else message
    return "healthy" if state in ("healthy", "good") else "sick"
