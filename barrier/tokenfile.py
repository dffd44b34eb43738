"""The tokens file's changes: a token is made or revoked and the file written anew, whole. Owns that file's writing.

A token itself is never written anywhere: it is made here, handed out once, and only its hash is kept. Comments that
somebody wrote into the file are not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from barrier.auth import Role, digest
from barrier.config import TokenEntry, TokensFile
from fleet import config
from fleet.config import BadConfig
from fleet.files import write_atomic

#: Random bytes in a token.
TOKEN_BYTES = 32
#: Seconds to wait for another process that changes the file.
LOCK_SECONDS = 5.0
_HEAD = "# Written by `pinrail token`, which keeps no comments. The barrier service reads it anew when it changes.\n"

Entries = tuple[TokenEntry, ...]


def entries(path: Path) -> Entries:
    """What the file holds. Raises BadConfig."""
    return config.load(path, TokensFile).token


def create(path: Path, name: str, role: Role, services: Sequence[str] = ()) -> str:
    """A new token, which nobody can read again. Makes the file where there is none. Raises BadConfig."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    entry = TokenEntry(name=name, role=role, services=tuple(dict.fromkeys(services)), sha256=digest(token))

    def add(before: Entries) -> Entries:
        if any(e.name == name for e in before):
            raise BadConfig(f"{path} has a token {name} already: revoke it first, or take another name")
        return (*before, entry)

    _change(path, add, missing_ok=True)
    return token


def revoke(path: Path, name: str) -> Entries:
    """The token no longer opens anything; what is left. Raises BadConfig."""

    def drop(before: Entries) -> Entries:
        left = tuple(e for e in before if e.name != name)
        if len(left) == len(before):
            names = ", ".join(e.name for e in before) or "none"
            raise BadConfig(f"{path} has no token {name}: there is {names}")
        return left

    return _change(path, drop)


def _change(path: Path, change: Callable[[Entries], Entries], *, missing_ok: bool = False) -> Entries:
    path = path.resolve()  # a link stays a link
    try:
        with _alone(path):
            there = path.stat() if path.exists() else None
            before = () if there is None and missing_ok else entries(path)
            after = change(before)
            if there is not None and os.geteuid() not in (0, there.st_uid):
                raise BadConfig(f"{path} belongs to another user: run this as its owner, so that it stays readable")
            write_atomic(path, _text(after), 0o600)
            if there is not None and there.st_uid != os.geteuid():
                os.chown(path, there.st_uid, there.st_gid)
    except OSError as e:
        raise BadConfig(f"cannot write {path}: {e.strerror}") from e
    return after


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process changes the file meanwhile. The directory is what is locked: the file is replaced."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= deadline:
                    raise BadConfig(f"another process is changing {path}: try again") from e
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _text(tokens: Entries) -> str:
    """Every value's alphabet was checked: none needs an escape."""
    blocks = [_HEAD]
    for e in tokens:
        lines = ["[[token]]", f'name = "{e.name}"', f'role = "{e.role}"']
        if e.services:
            lines.append("services = [{}]".format(", ".join(f'"{s}"' for s in e.services)))
        blocks.append("\n".join([*lines, f'sha256 = "{e.sha256}"', ""]))
    return "\n".join(blocks)
