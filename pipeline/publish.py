"""Builds in the object store: putting one there for good, and looking at what is there.

A build is the archive and its index first, then a signature where there is a key, then the manifest; it exists when its
manifest does. Archive and manifest are conditional writes, so a name means the same bytes for ever. Publishing the same
bytes again succeeds and changes nothing, after a crash in between as well.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from fleet import chunks
from fleet.loop import Trouble
from fleet.model import Manifest
from fleet.names import BadName, build_name, service_name
from fleet.s3 import AlreadyThere, ObjectStore, archive_key, build_prefix, chunks_key, manifest_key
from fleet.signing import PrivateKey
from pipeline import archive, signatures
from pipeline.git import Origin, origin

Phase = Literal["packing", "uploading", "downloading"]
#: What is going on, bytes so far, bytes in all.
Report = Callable[[Phase, int, int], None]


class BuildTaken(Exception):
    """The name belongs to other bytes. Nothing was changed."""


class NoSuchBuild(Exception):
    """There is no manifest of that name."""


class BadBuild(Exception):
    """What the store holds is not what its manifest says, or the manifest is not one."""


@dataclass(frozen=True)
class Published:
    manifest: Manifest
    #: False: the very same build was there already.
    new: bool


def _quiet(*_: object) -> None:
    pass


def publish(
    store: ObjectStore,
    tree: Path,
    service: str,
    build: str | None = None,
    *,
    key: PrivateKey | None = None,
    expires: int | None = None,
    report: Report = _quiet,
) -> Published:
    """Make ``tree`` a build of ``service``; without a name it gets the commit's, else the digest's beginning.

    With ``key`` it is signed, until ``expires`` (Unix seconds; None: for good), and so is the very same build that was
    there already, if this key has not signed it yet.

    Raises BadName, archive.BadTree, BuildTaken, signatures.BadSignatures, Trouble, and OSError where the temporary
    file cannot be written.
    """
    service_name(service)
    if build is not None:
        build_name(build)
    entries = archive.survey(tree)
    total = archive.content(entries)
    with tempfile.TemporaryDirectory(prefix="pinrail-") as directory:
        file = Path(directory) / "build.tar.zst"
        packed = archive.pack(entries, file, lambda done: report("packing", done, total))
        manifest = _manifest(service, build, packed, origin(tree))
        sign = _signer(store, key, expires)
        if there := _existing(store, manifest):
            sign(there)
            return Published(there, new=False)
        _put_archive(store, manifest, file, report)
        # Whoever it is that wrote it first: only who has the index of the manifest looks into it.
        store.put(chunks_key(manifest.service, manifest.build), packed.index, "application/octet-stream")
        sign(manifest)
        return Published(*_put_manifest(store, manifest))


def _signer(store: ObjectStore, key: PrivateKey | None, expires: int | None) -> Callable[[Manifest], None]:
    def sign(manifest: Manifest) -> None:
        if key and all(s.key != key.public.id for s in signatures.read(store, manifest.service, manifest.build)):
            signatures.sign(store, manifest, key, expires=expires)

    return sign


def _manifest(service: str, build: str | None, packed: archive.Packed, source: Origin) -> Manifest:
    return Manifest(
        service=service,
        build=build or source.short or packed.digest.removeprefix("sha256:")[:12],
        digest=packed.digest,
        size=packed.size,
        unpacked=packed.unpacked,
        files=packed.files,
        chunks=f"sha256:{hashlib.sha256(packed.index).hexdigest()}" if packed.index else None,
        commit=source.commit,
        branch=source.branch,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        builder=f"{_user()}@{socket.gethostname()}",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _put_archive(store: ObjectStore, wanted: Manifest, file: Path, report: Report) -> None:
    try:
        store.put_new(
            archive_key(wanted.service, wanted.build),
            file,
            "application/zstd",
            lambda at: report("uploading", at, wanted.size),
        )
    except AlreadyThere:
        _require_same_archive(store, wanted, report)


def _put_manifest(store: ObjectStore, wanted: Manifest) -> tuple[Manifest, bool]:
    try:
        store.put_new(
            manifest_key(wanted.service, wanted.build), wanted.model_dump_json(indent=2).encode(), "application/json"
        )
    except AlreadyThere as e:
        if there := _existing(store, wanted):
            return there, False
        raise Trouble(f"build {wanted.build} of {wanted.service} is being published by somebody else; try again") from e
    return wanted, True


def _existing(store: ObjectStore, wanted: Manifest) -> Manifest | None:
    """The manifest of that name, if it promises the same bytes; raises BuildTaken if others."""
    try:
        there = show(store, wanted.service, wanted.build)
    except NoSuchBuild:
        return None
    if there.digest != wanted.digest:
        raise BuildTaken(
            f"build {wanted.build} of {wanted.service} is there already with other bytes ({there.digest[:19]}, "
            f"published {there.created} by {there.builder}; these are {wanted.digest[:19]}): "
            "a build never changes, choose another name"
        )
    return there


def _require_same_archive(store: ObjectStore, wanted: Manifest, report: Report) -> None:
    """An archive without a manifest: somebody's publish was cut off, or is under way. Ours, if the bytes are."""
    same = store.size(archive_key(wanted.service, wanted.build)) == wanted.size
    if same:
        with tempfile.TemporaryDirectory(prefix="pinrail-") as directory:
            same = archive.digest_of(_download(store, wanted, Path(directory), report)) == wanted.digest
    if not same:
        raise BuildTaken(
            f"build {wanted.build} of {wanted.service} has an archive of other bytes already, and no manifest: "
            "another publish is under way or was cut off; finish it with its own bytes, or choose another name"
        )


def _download(store: ObjectStore, manifest: Manifest, directory: Path, report: Report) -> Path:
    to = directory / "build.tar.zst"
    store.download(
        archive_key(manifest.service, manifest.build),
        to,
        size=manifest.size,
        progress=lambda done: report("downloading", done, manifest.size),
    )
    return to


# --- looking -----------------------------------------------------------------------------------------------------


def show(store: ObjectStore, service: str, build: str) -> Manifest:
    """The manifest. Raises NoSuchBuild, BadBuild, BadName, Trouble."""
    key = manifest_key(service_name(service), build_name(build))
    raw = store.get(key)
    if raw is None:
        raise NoSuchBuild(f"there is no build {build} of {service}; `pinrail build list {service}` shows what there is")
    try:
        found = Manifest.model_validate_json(raw)
    except ValidationError as e:
        raise BadBuild(f"{key} in the store is not a manifest: {e.errors()[0]['msg']}") from e
    if (found.service, found.build) != (service, build):
        raise BadBuild(f"{key} in the store is the manifest of {found.service} {found.build}")
    return found


def builds(store: ObjectStore, service: str) -> tuple[list[Manifest], list[str]]:
    """All builds, the newest first, and a sentence for each that cannot be understood."""
    prefix = build_prefix(service_name(service))
    names = [key.removeprefix(prefix).removesuffix("/manifest.json") for key in store.keys(prefix) if _is_one(key)]

    def look(name: str) -> Manifest | str:
        try:
            return show(store, service, name)
        except (BadBuild, BadName, NoSuchBuild) as e:
            return str(e)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, names))
    manifests = [m for m in found if isinstance(m, Manifest)]
    return sorted(manifests, key=lambda m: m.created, reverse=True), [m for m in found if isinstance(m, str)]


def _is_one(key: str) -> bool:
    return key.endswith("/manifest.json")


def verify(store: ObjectStore, service: str, build: str, *, report: Report = _quiet) -> Manifest:
    """Fetch the build again and compare everything with its manifest. Raises as ``show``, and OSError for the disk."""
    manifest = show(store, service, build)
    with tempfile.TemporaryDirectory(prefix="pinrail-") as directory:
        file = _download(store, manifest, Path(directory), report)
        digest = archive.digest_of(file)
        if digest != manifest.digest:
            raise BadBuild(f"the archive of {build} has the digest {digest}, its manifest promises {manifest.digest}")
        try:
            found = archive.inspect(file)
        except archive.BadArchive as e:
            raise BadBuild(f"the archive of {build} is {e}") from e
    if manifest.chunks is not None:
        _verify_index(store, manifest)
    promised = archive.Packed(manifest.digest, manifest.size, manifest.unpacked, manifest.files)
    if found != promised:
        raise BadBuild(
            f"the archive of {build} holds {found.files} files of {found.unpacked} bytes, "
            f"its manifest says {manifest.files} of {manifest.unpacked}"
        )
    return manifest


def _verify_index(store: ObjectStore, manifest: Manifest) -> None:
    key = chunks_key(manifest.service, manifest.build)
    index = store.get(key) or b""
    if f"sha256:{hashlib.sha256(index).hexdigest()}" != manifest.chunks:
        raise BadBuild(f"{key} is not the index of chunks that the manifest of {manifest.build} promises")
    try:
        chunks.decode(index, manifest.size)
    except chunks.BadIndex as e:
        raise BadBuild(f"{key} is {e}") from e
