"""The object store. Owns where a build's objects lie; knows nothing of what is in them.

Every call has timeouts and a bounded number of tries, and goes wrong as ``fleet.s3_session`` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from botocore.exceptions import ClientError

from fleet.config import S3Config
from fleet.download import Download, Limits, Local, Pace, Progress, steady
from fleet.ranges import PiecewiseFile
from fleet.s3_session import AlreadyThere, S3Refused, S3Trouble, Session

if TYPE_CHECKING:
    from botocore.response import StreamingBody

__all__ = [
    "AlreadyThere",
    "ObjectStore",
    "S3Refused",
    "S3Trouble",
    "archive_key",
    "build_prefix",
    "chunks_key",
    "manifest_key",
    "signature_key",
]

PIECE = 8 * 1024 * 1024
_CHUNK = 256 * 1024


def build_prefix(service: str, build: str = "") -> str:
    return f"builds/{service}/{build}/" if build else f"builds/{service}/"


def archive_key(service: str, build: str) -> str:
    return build_prefix(service, build) + "build.tar.zst"


def manifest_key(service: str, build: str) -> str:
    """Written last: a build exists when its manifest does."""
    return build_prefix(service, build) + "manifest.json"


def chunks_key(service: str, build: str) -> str:
    """Of which chunks the archive is made (``fleet.chunks``)."""
    return build_prefix(service, build) + "chunks"


def signature_key(service: str, build: str) -> str:
    """Written before the manifest, so that what is signed was never to be had unsigned; and again by a later key."""
    return build_prefix(service, build) + "manifest.sig"


class ObjectStore:
    """One bucket. Safe to use from several threads."""

    def __init__(self, config: S3Config, *, connect_seconds: float = 3.0) -> None:
        self._session = Session(config, connect_seconds)
        self.where = self._session.where
        self.bucket = config.bucket
        self._stall = config.stall_seconds

    # -- reading --

    def get(self, key: str) -> bytes | None:
        """A small object's bytes; None where there is no such key."""
        with self._session.doing(f"read {key}"):
            client = self._session.client()
            try:
                answer = client.get_object(Bucket=self.bucket, Key=key)
            except client.exceptions.NoSuchKey:
                return None
            chunks = _chunks(answer["Body"])
            data = b"".join(steady(chunks, f"{key} in S3 at {self.where}", self._stall))
            if len(data) != answer["ContentLength"]:
                raise S3Trouble(f"{key} in S3 at {self.where} ended early")
            return data

    def size(self, key: str) -> int | None:
        """An object's length in bytes; None where there is no such key."""
        found = self._head(key)
        return found[0] if found else None

    def _head(self, key: str) -> tuple[int, str] | None:
        with self._session.doing(f"look at {key}"):
            try:
                answer = self._session.client().head_object(Bucket=self.bucket, Key=key)
            except ClientError as e:
                if e.response.get("Error", {}).get("Code") == "404":  # no body: a missing bucket looks the same
                    self._require_bucket()
                    return None
                raise
            return answer["ContentLength"], answer["ETag"]

    def _require_bucket(self) -> None:
        if not self._bucket_exists():
            raise S3Refused(f"S3 at {self.where} has no bucket {self.bucket!r}: make it, or correct its name")

    def _bucket_exists(self) -> bool:
        with self._session.doing("look at the bucket"):
            try:
                self._session.client().head_bucket(Bucket=self.bucket)
            except ClientError as e:
                if e.response.get("Error", {}).get("Code") == "404":
                    return False
                raise
            return True

    def keys(self, prefix: str) -> list[str]:
        """Every key that begins with ``prefix``, sorted."""
        with self._session.doing(f"list {prefix}"):
            pages = self._session.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return sorted(o["Key"] for page in pages for o in page.get("Contents", []))

    def download(
        self,
        key: str,
        to: Path,
        *,
        size: int,
        local: Local | None = None,
        pace: Pace | None = None,
        progress: Progress | None = None,
        beginning: Progress | None = None,
        seconds: float = 1800.0,
    ) -> int:
        """Fill ``to`` with the object's ``size`` bytes, ranges in parallel, and make it durable; the bytes fetched.

        Where an earlier call was cut off, what it got is kept (``to`` and ``<to>.ranges``, see ``fleet.ranges``); so
        call it again after Trouble. What ``local`` has is not fetched. The content is not checked: compare the digest,
        and remove ``to`` where it is wrong. ``progress`` is given the bytes so far, from several threads, one at a
        time; what it raises ends the download. ``beginning`` is given how many bytes of the file's beginning are there
        for good, whenever there may be more. Raises OSError for the disk's troubles and Trouble for the rest, at
        ``seconds`` at the latest.
        """
        found = self._head(key)
        if found is None:
            raise S3Refused(f"S3 at {self.where} has no {key} in bucket {self.bucket!r}")
        length, tag = found
        if length != size:
            raise S3Refused(f"{key} in S3 at {self.where} has {length} bytes, not the {size} that its manifest says")
        with PiecewiseFile(to, size=size, identity=tag, piece=PIECE) as file:
            limits = Limits(time.monotonic() + seconds, self._stall, pace)
            fetched = Download(_Object(self, key, tag), file, local, progress, beginning, limits).run(size)
            file.finish()
        return fetched

    def open_range(self, key: str, start: int, end: int, *, tag: str) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``end``, in chunks, while the object still has the entity tag ``tag``."""
        with self._session.doing(f"read {key}"):
            changed = f"{key} in S3 at {self.where} changed while it was read"
            try:
                answer = self._session.client().get_object(
                    Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=tag
                )
            except ClientError as e:
                if e.response.get("Error", {}).get("Code") == "PreconditionFailed":
                    raise S3Trouble(changed) from e
                raise
            try:
                # Not every store heeds what it is asked.
                if answer["ETag"] != tag:
                    raise S3Trouble(changed)
                given = answer.get("ContentRange", "all of it")
                if not given.startswith(f"bytes {start}-{end - 1}/") or answer["ContentLength"] != end - start:
                    asked = f"was asked for bytes {start}-{end - 1} of {key}, and gave {given}"
                    raise S3Trouble(f"S3 at {self.where} {asked}")
                yield from _chunks(answer["Body"])
            finally:
                answer["Body"].close()

    # -- writing --

    def put_new(
        self, key: str, data: bytes | Path, content_type: str, progress: Callable[[int], None] | None = None
    ) -> None:
        """Write ``key`` if nothing is there yet. Raises AlreadyThere, and has changed nothing then.

        ``progress`` is given the position in ``data``; over plain http it runs to the end twice, to sign and to send.
        """
        with self._session.doing(f"write {key}"):
            if isinstance(data, bytes):
                self._put(key, data, content_type)
                return
            with data.open("rb") as f:
                self._put(key, _Watched(f, progress) if progress else f, content_type)

    def _put(self, key: str, body: bytes | IO[bytes] | _Watched, content_type: str) -> None:
        self._session.client().put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,  # type: ignore[arg-type]  # any file-like object will do; the stub asks for IO
            ContentType=content_type,
            IfNoneMatch="*",
        )

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Write ``key``, whatever was there."""
        with self._session.doing(f"write {key}"):
            self._session.client().put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type)

    def make_bucket(self) -> None:
        """The bucket is there afterwards."""
        if self._bucket_exists():
            return
        with self._session.doing("make the bucket"):
            client = self._session.client()
            try:
                client.create_bucket(Bucket=self.bucket)
            except client.exceptions.BucketAlreadyOwnedByYou:
                return


def _chunks(body: StreamingBody) -> Iterator[bytes]:
    """As they come: its own ``read`` waits for all that it was asked for, however long that takes."""
    while data := body._raw_stream.read1(_CHUNK):  # type: ignore[attr-defined]
        yield data


class _Watched:
    """A file that says where it is being read."""

    def __init__(self, f: IO[bytes], progress: Callable[[int], None]) -> None:
        self._f = f
        self._progress = progress
        self.seek, self.tell = f.seek, f.tell

    def read(self, n: int = -1) -> bytes:
        data = self._f.read(n)
        self._progress(self._f.tell())
        return data


class _Object:
    """A ``fleet.download.Source``."""

    final = S3Refused

    def __init__(self, store: ObjectStore, key: str, tag: str) -> None:
        self.name = f"{key} in S3 at {store.where}"
        self._store = store
        self._key = key
        self._tag = tag

    def read(self, start: int, end: int) -> Iterator[bytes]:
        return self._store.open_range(self._key, start, end, tag=self._tag)
