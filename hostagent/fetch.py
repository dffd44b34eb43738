"""From the object store to a verified archive on disk. What it leaves under the final name is complete and right.

Trusts nothing but the digest that ``enabled`` names: the manifest must be the one of that digest, and the archive must
have it. Of the archive only those chunks are fetched that no kept one has; what is there of it is read through while
the rest still comes. A download that was cut off goes on where it was; one that turns out wrong is thrown away, so that
the next attempt starts afresh.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fleet import chunks, log
from fleet.chunks import BadIndex, Chunk
from fleet.download import Pace, Progress
from fleet.files import sync_directory, write_atomic
from fleet.loop import Trouble
from fleet.model import Manifest
from fleet.s3 import ObjectStore, archive_key, chunks_key, manifest_key
from hostagent import failpoint
from hostagent.archive import Frame, Growth, Verified, WrongDigest, seal, verify
from hostagent.kept import Kept
from hostagent.layout import index_of

_log = log.get()


class BadBuild(Trouble):
    """What the store holds is not what was promised. Says which."""


def manifest(store: ObjectStore, service: str, build: str, digest: str) -> Manifest:
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


@dataclass(frozen=True)
class Means:
    """What a fetch may use, and what it must leave."""

    kept: Kept
    pace: Pace | None = None
    #: Bytes of the disk.
    reserve: int = 0


@dataclass(frozen=True)
class Fetched:
    #: Bytes that came from the store.
    bytes: int
    archive: Verified


def fetch(
    store: ObjectStore, wanted: Manifest, archive: Path, means: Means, progress: Progress | None = None
) -> Fetched:
    """The build's archive is at ``archive``, whole and with the manifest's digest, its index beside it.

    Raises Trouble or OSError.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    _room(wanted, archive.parent, means.reserve)
    part = archive.with_name(archive.name + ".part")
    index = _index(store, wanted)
    if index is not None:
        write_atomic(index_of(archive), index[0])
    got, frames = _whole(store, wanted, part, index[1] if index else None, means, progress)
    if index is not None and frames is None:
        _log.warning("the index of chunks is not the archive's", service=wanted.service, build=wanted.build)
        index_of(archive).unlink()
    failpoint.at(wanted.service, wanted.build, "fetch.verified")
    part.rename(archive)
    sync_directory(archive.parent)
    with archive.open("rb") as f:
        return Fetched(got, Verified(wanted.digest, seal(f.fileno()), frames))


def _whole(
    store: ObjectStore,
    wanted: Manifest,
    part: Path,
    index: Sequence[Chunk] | None,
    means: Means,
    progress: Progress | None,
    *,
    doubting: bool = False,
) -> tuple[int, tuple[Frame, ...] | None]:
    """``part`` is all of it, with the right digest: bytes fetched, and its frames if the index is its own.

    Where that is not so of what was put together here, once more, ``doubting`` what is kept here.
    """
    local = means.kept.local(index, doubting=doubting) if index is not None else None
    growth = Growth()
    with ThreadPoolExecutor(1, "verify") as beside:
        found = beside.submit(_read_through, part, wanted.digest, index, growth)
        try:
            got = store.download(
                archive_key(wanted.service, wanted.build),
                part,
                size=wanted.size,
                local=local,
                pace=means.pace,
                progress=progress,
                beginning=growth.reaches,
            )
            growth.reaches(wanted.size)  # the download is over: nobody waits for more of it
        except BaseException:
            growth.give_up()
            raise
        finally:
            if local is not None:
                local.close()
    try:
        return got, found.result()
    except WrongDigest as e:
        part.unlink()
        if doubting or local is None or not local.used:
            raise BadBuild(
                f"the archive of {wanted.build} has the digest {e.found}, its manifest promises {wanted.digest}"
            ) from e
    _log.warning("a kept archive is not what it was", service=wanted.service, build=wanted.build)
    again, frames = _whole(store, wanted, part, index, means, progress, doubting=True)
    return got + again, frames


def _read_through(part: Path, digest: str, index: Sequence[Chunk] | None, growth: Growth) -> tuple[Frame, ...] | None:
    """``part`` as far as it is there already, beside who fills it."""
    growth.wait(0)
    with part.open("rb") as f:
        return verify(f.fileno(), digest, index, growth.wait)


def _index(store: ObjectStore, wanted: Manifest) -> tuple[bytes, tuple[Chunk, ...]] | None:
    """None where there is none, or one that is of no use: the archive is then fetched whole."""
    if wanted.chunks is None:
        return None
    raw = store.get(chunks_key(wanted.service, wanted.build))
    if raw is None or f"sha256:{hashlib.sha256(raw).hexdigest()}" != wanted.chunks:
        _log.warning("the index of chunks is not the manifest's", service=wanted.service, build=wanted.build)
        return None
    try:
        return raw, chunks.decode(raw, wanted.size)
    except BadIndex as e:
        _log.warning(str(e), service=wanted.service, build=wanted.build)
        return None


def _room(wanted: Manifest, directory: Path, reserve: int) -> None:
    """Better no download than half of one on a full disk."""
    needed = wanted.size + wanted.unpacked
    free = shutil.disk_usage(directory).free
    if free - reserve < needed:
        kept = f" ({reserve} of them are not for builds: disk_reserve)" if reserve else ""
        raise BadBuild(f"{wanted.build} needs {needed} bytes on {directory}, and {free} are free{kept}")
