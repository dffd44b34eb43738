"""What a release that is being unpacked shares with an earlier one, and what it holds itself, for the one after it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hostagent import seals
from hostagent.archive import Frame
from hostagent.contents import MEMBERS_MAX, Contents, Same
from hostagent.tar import TarMember
from hostagent.twin import linked


@dataclass(frozen=True)
class Earlier:
    """A release to share with, which nobody but us can write to. None: there is none yet; the next may share."""

    release: Path | None = None
    contents: Contents | None = None


class Sharing:
    """``frames``: of the archive that is unpacked; None where they are not known, or nothing is to be shared."""

    def __init__(self, earlier: Earlier, frames: Sequence[Frame] | None) -> None:
        self._root = os.path.realpath(earlier.release) if earlier.release else None
        self._frames = frames
        theirs = earlier.contents if self._root else None
        self._seals = theirs.seals if theirs else {}
        self._same = Same(frames, theirs) if frames is not None and theirs is not None else None
        self._plain: dict[tuple[str, ...], bool] = {}
        #: Of each member that has not got it, what its digest will be.
        self._held: list[tuple[TarMember, Callable[[], bytes] | None]] | None = [] if frames is not None else None

    def known(self, start: int) -> TarMember | None:
        return self._same.at(start) if self._same else None

    def old(self, parts: tuple[str, ...]) -> str | None:
        """Where the earlier release may have a file of that name: nowhere that a symlink leads to."""
        if self._root is None:
            return None
        parent = parts[:-1]
        if parent not in self._plain:
            directory = "/".join((self._root, *parent))
            self._plain[parent] = os.path.realpath(directory) == directory
        return "/".join((self._root, *parts)) if self._plain[parent] else None

    def link(self, path: str, old: str | None, member: TarMember) -> bool:
        """A file that the earlier release should have is a link to that; False where it has not got it, or not so."""
        if not member.digest or not member.size or old is None:
            return False
        return linked(old, path, member, self._seals.get(member.name))

    # -- what it holds --

    def hold(self, member: TarMember, digest: Callable[[], bytes] | None = None) -> None:
        """``digest``: of a file's content that was not known."""
        if self._held is None:
            return
        self._held.append((member, digest))
        if len(self._held) > MEMBERS_MAX:
            self._held = None

    def hashed(self) -> tuple[Callable[[bytes], object], Callable[[], bytes] | None]:
        """To be given a file's content, and what then gives its digest."""
        if self._held is None:
            return lambda _: None, None
        found = hashlib.sha256()
        return found.update, found.digest  # a thread of its own for this takes longer to be told than it takes here

    def contents(self, root: Path) -> Contents | None:
        """Everything, once all of it was held. Its files are below ``root``."""
        if self._held is None or self._frames is None:
            return None
        frames = tuple((f.digest, f.content) for f in self._frames)
        members = tuple(replace(m, digest=digest()) if digest is not None else m for m, digest in self._held)
        return Contents(frames, members, seals.made(root, (m.name for m in members if m.kind == "file")))
