"""Who may do what: bearer tokens from a file of hashes, read anew when the file changes. Owns that file's reading."""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from barrier.config import TokenEntry, TokensFile
from barrier.problems import Problem
from barrier.store.audit import By
from barrier.store.once import Once
from fleet import config, log

Role = Literal["read", "deploy", "admin"]
#: Each role may do what those before it may.
ROLES: tuple[Role, ...] = ("read", "deploy", "admin")

_log = log.get()


@dataclass(frozen=True)
class Principal:
    """The owner of a token, as the audit names it."""

    name: str
    role: Role
    #: Empty: all.
    services: tuple[str, ...] = ()
    #: This very call, where it has an Idempotency-Key.
    once: Once | None = None

    def reaches(self, service: str | None) -> bool:
        """Whether the token is good for that service; None is what concerns all of them."""
        return not self.services or service in self.services

    def must_reach(self, service: str | None) -> None:
        """Raises Problem: 403."""
        if not self.reaches(service):
            asked = service if service is not None else "what concerns all services"
            only = ", ".join(self.services)
            raise Problem(403, f"the token of {self.name} is for {only} only, not for {asked}", services=self.services)

    def because(self, reason: str) -> By:
        """As the audit has it."""
        return By(self.name, self.role, reason, self.once)


def digest(token: str) -> str:
    """What the tokens file holds in place of ``token``."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The tokens file. Raises BadConfig when it cannot be read at first; a bad change later changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._entries = config.load(path, TokensFile).token

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino  # ctime: owner and mode count too

    def _current(self) -> tuple[TokenEntry, ...]:
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._entries = config.load(self._path, TokensFile).token
                    _log.info(f"{self._path} has changed: {len(self._entries)} tokens")
                except config.BadConfig as e:
                    _log.error(f"the tokens stay as they were: {e}")
            return self._entries

    def identify(self, header: str | None, needed: Role) -> Principal:
        """The owner of the token in an Authorization header. Raises Problem: 401 for none or a wrong one, 403."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unauthorized("send a token: Authorization: Bearer TOKEN")
        asked = digest(token.strip())
        found = None
        for entry in self._current():  # all of them, whatever matches: the time taken says nothing
            if hmac.compare_digest(entry.sha256, asked):
                found = entry
        if found is None:
            raise _unauthorized("the token is not known here")
        if ROLES.index(found.role) < ROLES.index(needed):
            raise Problem(403, f"this needs the role {needed}; the token of {found.name} has {found.role}")
        return Principal(found.name, found.role, found.services)


def _unauthorized(detail: str) -> Problem:
    return Problem(401, detail, headers={"www-authenticate": 'Bearer realm="pinrail"'})
