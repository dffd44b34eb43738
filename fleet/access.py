"""Who may do what to which znode, as ZooKeeper itself enforces it: a digest user for each kind of part. Pure.

ZooKeeper's lists are per node and nothing is inherited, so every node gets one when it is made. The barrier service
may do everything; edges and hosts may read everything, and write only what is theirs. One edge is not kept from
another edge's nodes: they share a user.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from enum import IntFlag
from typing import Literal, get_args

from pydantic import Field

from fleet.config import FileModel

Role = Literal["barrier", "edge", "host"]
ROLES: tuple[Role, ...] = get_args(Role)


class Right(IntFlag):
    """ZooKeeper's permissions. CREATE and DELETE are about a node's children."""

    READ = 1
    WRITE = 2
    CREATE = 4
    DELETE = 8
    ADMIN = 16
    ALL = 31


_CHILDREN = Right.CREATE | Right.DELETE
#: Beside reading, which everybody may.
_RULES: tuple[tuple[re.Pattern[str], Role, Right], ...] = (
    (re.compile(r"/edges"), "edge", _CHILDREN),
    (re.compile(r"/roster"), "edge", Right.CREATE),  # an edge joins; only the barrier service takes it off
    (re.compile(r"/services/[^/]+/acks"), "edge", _CHILDREN),
    (re.compile(r"/(edges|roster)/[^/]+|/services/[^/]+/acks/[^/]+"), "edge", Right.WRITE),
    (re.compile(r"/services/[^/]+/(hosts|serversets|serversets/[^/]+)"), "host", _CHILDREN),
    (re.compile(r"/services/[^/]+/(hosts/[^/]+|serversets/[^/]+/[^/]+)"), "host", Right.WRITE),
)


def rights(path: str) -> dict[Role, Right]:
    """What each role may do to the node at ``path``, which is relative to the chroot."""
    found: dict[Role, Right] = {"barrier": Right.ALL, "edge": Right.READ, "host": Right.READ}
    for pattern, role, right in _RULES:
        if pattern.fullmatch(path):
            found[role] |= right
    return found


def digest(role: Role, secret: str) -> str:
    """The id that ZooKeeper knows a user by; the secret cannot be had from it."""
    hashed = hashlib.sha1(f"{role}:{secret}".encode()).digest()  # noqa: S324  # it is what ZooKeeper's scheme is
    return f"{role}:{base64.b64encode(hashed).decode()}"


class Access(FileModel):
    """One part's file: who it is to ZooKeeper, and whom it lets at what it makes."""

    role: Role
    secret: str = Field(min_length=16, max_length=200, pattern=r"^[A-Za-z0-9_-]+$", repr=False)
    #: Of all roles: their ids, which are no secrets.
    digests: dict[Role, str]
    #: Anybody who reaches ZooKeeper may read everything. Nobody but the fleet may ever write.
    anyone_reads: bool = False

    def entries(self, path: str) -> dict[tuple[str, str], Right]:
        """The node's list: rights by scheme and id."""
        found = {("digest", self.digests[r]): right for r, right in rights(path).items() if r in self.digests}
        return found | ({("world", "anyone"): Right.READ} if self.anyone_reads else {})


def issue(secrets: Mapping[Role, str], *, anyone_reads: bool = False) -> dict[Role, Access]:
    """The file of each role, from their secrets."""
    digests = {role: digest(role, secret) for role, secret in secrets.items()}
    return {r: Access(role=r, secret=s, digests=digests, anyone_reads=anyone_reads) for r, s in secrets.items()}
