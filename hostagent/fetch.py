"""From the object store to a verified archive on disk. What it leaves under the final name is complete and right.

Trusts nothing but the digest that ``enabled`` names: the manifest must be the one of that digest, and the archive must
have it. A download that was cut off goes on where it was; one that turns out wrong is thrown away, so that the next
attempt starts afresh.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from fleet.files import sync_directory
from fleet.loop import Trouble
from fleet.model import Manifest
from fleet.s3 import archive_key, manifest_key
from hostagent import failpoint

_CHUNK = 1024 * 1024


class BadBuild(Trouble):
    """What the store holds is not what was promised. Says which."""


class Store(Protocol):
    """What is used of ``fleet.s3.ObjectStore``."""

    def get(self, key: str) -> bytes | None: ...

    def download(self, key: str, to: Path, *, size: int, progress: Callable[[int], None] | None = None) -> None: ...


def manifest(store: Store, service: str, build: str, digest: str) -> Manifest:
    """The build's manifest, which must be the one that was enabled."""
    key = manifest_key(service, build)
    raw = store.get(key)
    if raw is None:
        raise BadBuild(f"there is no build {build} of {service} in the store ({key})")
    try:
        found = Manifest.model_validate_json(raw)
    except ValidationError as e:
        raise BadBuild(f"{key} is not a manifest: {e.errors()[0]['msg']}") from e
    if (found.service, found.build) != (service, build):
        raise BadBuild(f"{key} is the manifest of {found.service} {found.build}")
    if found.digest != digest:
        raise BadBuild(f"{key} promises {found.digest}, but {digest} is enabled")
    return found


def fetch(store: Store, wanted: Manifest, archive: Path, progress: Callable[[int], None] | None = None) -> None:
    """The build's archive is at ``archive``, whole and with the manifest's digest. Raises Trouble or OSError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    _room(wanted, archive.parent)
    part = archive.with_name(archive.name + ".part")
    store.download(archive_key(wanted.service, wanted.build), part, size=wanted.size, progress=progress)
    try:
        _verify(part, wanted)
    except BadBuild:
        part.unlink()
        raise
    failpoint.at(wanted.service, wanted.build, "fetch.verified")
    part.rename(archive)
    sync_directory(archive.parent)


def _verify(path: Path, wanted: Manifest) -> None:
    size = path.stat().st_size
    if size != wanted.size:
        raise BadBuild(f"the archive of {wanted.build} has {size} bytes, its manifest says {wanted.size}")
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while piece := f.read(_CHUNK):
            digest.update(piece)
    if f"sha256:{digest.hexdigest()}" != wanted.digest:
        raise BadBuild(
            f"the archive of {wanted.build} has the digest sha256:{digest.hexdigest()}, "
            f"its manifest promises {wanted.digest}"
        )


def _room(wanted: Manifest, directory: Path) -> None:
    """Better no download than half of one on a full disk."""
    needed = wanted.size + wanted.unpacked
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise BadBuild(f"{wanted.build} needs {needed} bytes on {directory}, and {free} are free")
