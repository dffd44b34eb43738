"""The page's files, as they are shipped: HTML, a stylesheet, JavaScript modules, an icon. No build step, nothing from
elsewhere. Read once; whatever is not in the directory does not exist.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    body: bytes
    kind: str
    etag: str


@cache
def files() -> dict[str, File]:
    """By name."""
    found = {}
    for entry in resources.files(__package__).iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found
