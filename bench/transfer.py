"""Builds on their way to hosts: published, fetched, unpacked; beside a plain copy and ``tar x`` of the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import zstandard

from bench.measure import Row, Samples
from bench.servers import connects, free_port, running, until
from fleet.config import S3Config
from fleet.files import read_or_none
from fleet.model import Manifest
from fleet.s3 import ObjectStore, archive_key
from hostagent.fetch import Means, fetch
from hostagent.kept import Kept
from hostagent.layout import Layout, index_of
from hostagent.unpack import Limits, unpack
from pinrail.local import s3server
from pipeline.publish import publish

HOSTS = 3
FILES, BYTES = 2000, 100_000
_CHANGED = FILES // 100
_CHUNK = 1024 * 1024
_KEY = "bench"


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    """``rounds`` is the most: each moves 1.2 GB to begin with."""
    directory.mkdir()
    with _s3(directory / "s3") as config:
        store = ObjectStore(config)
        store.make_bucket()
        tree = directory / "tree"
        _tree(tree)
        whole: list[tuple[float, float]] = []
        part: list[tuple[float, float]] = []
        published: list[float] = []
        fetched = size = 0
        for n in range(min(rounds, 2)):
            began = time.monotonic()
            first = publish(store, tree, "bench", f"a{n}").manifest
            published.append(time.monotonic() - began)
            _change(tree, n)
            second = publish(store, tree, "bench", f"b{n}").manifest
            hosts = [_Host(store, config, directory / f"host-{n}-{i}") for i in range(HOSTS)]
            ours, plain = (_timed(hosts, first, do)[0] for do in (_Host.install, _Host.copy))
            whole.append((ours, plain))
            ours, fetched = _timed(hosts, second, _Host.install)
            part.append((ours, _timed(hosts, second, _Host.copy)[0]))
            size = second.size
            for host in hosts:
                host.remove()
    yield Row("publish 200 MB", f"{Samples(tuple(published)).text('.1f')} s", f"an archive of {size / 1e6:,.0f} MB")
    yield _row(f"install it on {HOSTS} hosts", whole, f"{HOSTS * size / 1e6:,.0f} MB", 2.0)
    share = f"{fetched / 1e6:,.1f} MB ({fetched / HOSTS / size:.1%})"
    yield _row("install a build of which 1 % changed", part, share, 10.0)


def _row(name: str, pairs: list[tuple[float, float]], moved: str, goal: float) -> Row:
    ours, plain = (Samples(side) for side in zip(*pairs, strict=True))
    rate = Samples(tuple(b / a for a, b in pairs))
    other = f"{plain.text('.1f')} s, one stream and tar x"
    return Row(name, f"{ours.text('.1f')} s, {moved}", other, rate=rate, goal=goal)


def _timed(hosts: list[_Host], build: Manifest, do: Callable[[_Host, Manifest], int]) -> tuple[float, int]:
    """All hosts at once; the seconds, and the bytes that were fetched."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(hosts)) as pool:
        fetched = sum(pool.map(do, hosts, [build] * len(hosts)))
    return time.monotonic() - began, fetched


@contextlib.contextmanager
def _s3(directory: Path) -> Iterator[S3Config]:
    directory.mkdir()
    port = free_port()
    credentials = directory / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {_KEY}\naws_secret_access_key = {_KEY}\n")
    os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = _KEY
    with running(s3server.argv(directory / "data", "127.0.0.1", port), directory / "log"):
        until("S3 listens", lambda: connects("127.0.0.1", port), 60)
        yield S3Config(endpoint=f"http://127.0.0.1:{port}", bucket="bench", credentials=credentials)


def _tree(directory: Path) -> None:
    """200 MB in 2000 files, of which zstd saves a part."""
    chance = random.Random(1)  # noqa: S311
    directory.mkdir()
    words = [chance.randbytes(8) for _ in range(256)]
    for n in range(FILES):
        text = b"".join(words[b] for b in chance.randbytes(BYTES // 16))
        (directory / f"f{n:04}").write_bytes(chance.randbytes(BYTES - len(text)) + text)


def _change(directory: Path, n: int) -> None:
    """One file in a hundred, all of it."""
    chance = random.Random(n + 2)  # noqa: S311
    for f in chance.sample(range(FILES), _CHANGED):
        (directory / f"f{f:04}").write_bytes(chance.randbytes(BYTES))


class _Host:
    """One host's disk; each build is fetched and unpacked as its agent would."""

    def __init__(self, store: ObjectStore, config: S3Config, directory: Path) -> None:
        self._store = store
        self._config = config
        self._directory = directory
        self._layout = Layout(directory, directory / "run")
        self._kept = Kept(self._layout, "bench", 2)

    def install(self, build: Manifest) -> int:
        """The bytes fetched."""
        file = self._layout.archive("bench", build.build)
        fetched = fetch(self._store, build, file, Means(self._kept))
        release = self._layout.release("bench", build.build)
        release.parent.mkdir(parents=True, exist_ok=True)
        unpack(file, release, digest=build.digest, limits=Limits())
        self._kept.keep(build.build, file, read_or_none(index_of(file)))
        return fetched

    def copy(self, build: Manifest) -> int:
        """One stream to the disk, and then tar: what a script does."""
        to = self._directory / f"plain-{build.build}"
        to.mkdir(parents=True)
        archive = to.with_suffix(".tar.zst")
        client = boto3.client(
            "s3",
            endpoint_url=self._config.endpoint,
            region_name=self._config.region,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
        )
        body = client.get_object(Bucket=self._config.bucket, Key=archive_key("bench", build.build))["Body"]
        with archive.open("wb") as out:
            shutil.copyfileobj(body, out, _CHUNK)
        with (
            archive.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as plain,
            subprocess.Popen(("tar", "-x", "-C", str(to)), stdin=subprocess.PIPE) as tar,
        ):
            assert tar.stdin is not None  # noqa: S101
            shutil.copyfileobj(plain, tar.stdin, _CHUNK)
        return archive.stat().st_size

    def remove(self) -> None:
        shutil.rmtree(self._directory)
