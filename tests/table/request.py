"""One request as bytes on a connection, and what a host of the test's own makes of its path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """``written``: the request line's target; ``target`` is what is left when an absolute URI lost its authority."""

    method: str = "GET"
    written: str = "/"
    protocol: str = "HTTP/1.1"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def target(self) -> str:
        if not re.match("http://", self.written, re.IGNORECASE):
            return self.written
        rest = self.written[len("http://") :]
        at = min((rest.index(c) for c in "/?" if c in rest), default=len(rest))
        return rest[at:] or "/"

    @property
    def authority(self) -> str:
        """An absolute URI's authority comes before any Host header (RFC 9112, 3.2.2)."""
        if re.match("http://", self.written, re.IGNORECASE):
            return urlsplit(self.written).netloc
        return self.first("Host") or ""

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(v.strip(" \t") for k, v in self.headers if k.lower() == name.lower())

    def first(self, name: str) -> str | None:
        """A header that is sent twice counts by its first line."""
        return next(iter(self.all(name)), None)

    def raw(self) -> bytes:
        lines = [f"{self.method} {self.written} {self.protocol}", *(f"{k}:{v}" for k, v in self.headers)]
        if self.body or self.method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def status_at(self, version: str) -> int:
        """What the host of ``version`` answers: ``/only-V/`` below any path is in V alone, ``/status-N`` is N."""
        return status_at(self.target, version)


def status_at(target: str, version: str) -> int:
    path = target.partition("?")[0]
    if only := re.search(r"/only-([A-Za-z0-9._-]+)/", path):
        return 200 if only.group(1) == version else 404
    found = re.search(r"/status-(\d{3})$", path)
    return int(found.group(1)) if found else 200
