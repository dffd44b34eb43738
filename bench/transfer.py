"""Builds on their way to hosts: published, fetched, unpacked; beside a plain copy and ``tar x`` of the same bytes."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import zstandard

from bench.measure import Row, Samples, Spoiled
from bench.servers import connects, running, until
from edge.nginx.server import MODULES, NJS
from fleet.config import S3Config
from fleet.files import read_or_none, write_atomic
from fleet.model import Manifest
from fleet.s3 import ObjectStore, archive_key, chunks_key
from hostagent.contents import decode
from hostagent.fetch import Means, fetch
from hostagent.kept import Kept
from hostagent.layout import Layout, index_of
from hostagent.unpack import Earlier, Limits, unpack
from pinrail.local import s3server
from pinrail.local.ports import free_port
from pipeline.publish import publish

HOSTS = 3
FILES, BYTES = 2000, 100_000
_CHUNK = 1024 * 1024
_KEY = "bench"
#: Bytes: of archives and trees of all hosts, and room.
_TOUCHED = HOSTS * 2 * FILES * BYTES + 256 * 1024**2


def rows(directory: Path, *, rounds: int) -> Iterator[Row]:
    """``rounds`` is the most: each moves 2.4 GB to begin with."""
    directory.mkdir()
    with _s3(directory / "s3") as config, _far(directory / "far", config) as far:
        store = ObjectStore(config)
        store.make_bucket()
        tree = directory / "tree"
        _tree(tree)
        published: list[float] = []
        found = {name: _Pairs() for name in _STORES}
        for n in range(min(rounds, 3)):
            began = time.monotonic()
            first = publish(store, tree, "bench", f"a{n}").manifest
            published.append(time.monotonic() - began)
            again = publish(store, tree, "bench", f"again{n}").manifest
            if again.digest != first.digest:
                raise Spoiled("the same tree gave two archives")
            _change(tree, n)
            second = publish(store, tree, "bench", f"b{n}").manifest
            for build in (first, second):
                _put(store, build, directory / "far")
            for name, where in zip(_STORES, (config, far), strict=True):
                hosts = [_Host(where, directory / f"host-{n}-{i}") for i in range(HOSTS)]
                found[name].add(hosts, first, second)
                for host in hosts:
                    host.remove()
    size = f"an archive of {second.size / 1e6:,.0f} MB; of the same tree the same, every time"
    yield Row("publish 200 MB", f"{Samples(tuple(published)).text('.1f')} s", size)
    for name, goals in _STORES.items():
        pairs = found[name]
        yield _row(f"install it on {HOSTS} hosts, {name}", pairs.whole, HOSTS * second.size, second, goals[0])
        yield _row(f"install a build of which 1 % changed, {name}", pairs.part, pairs.fetched, second, goals[1])


#: What a store gives on one connection, for which the goals are: as much as there is, or as one that is far away.
FAR_MB = 25
#: Milliseconds before such a one answers at all.
FAR_MS = 20
_STORES: dict[str, tuple[float | None, float | None]] = {
    "a store on this machine": (None, None),
    f"{FAR_MB} MB/s a connection after {FAR_MS} ms": (2.0, 10.0),
}


@dataclass
class _Pairs:
    """Seconds of ours and of the plain way, round by round."""

    whole: list[tuple[float, float]] = field(default_factory=list)
    part: list[tuple[float, float]] = field(default_factory=list)
    fetched: int = 0

    def add(self, hosts: list[_Host], first: Manifest, second: Manifest) -> None:
        ours, plain = (_timed(hosts, first, do)[0] for do in (_Host.install, _Host.copy))
        self.whole.append((ours, plain))
        ours, self.fetched = _timed(hosts, second, _Host.install)
        self.part.append((ours, _timed(hosts, second, _Host.copy)[0]))


def _row(name: str, pairs: list[tuple[float, float]], moved: int, build: Manifest, goal: float | None) -> Row:
    ours, plain = (Samples(side) for side in zip(*pairs, strict=True))
    rate = Samples(tuple(b / a for a, b in pairs))
    other = f"{plain.text('.1f')} s, one stream and tar x, {HOSTS * build.size / 1e6:,.0f} MB"
    share = f"{moved / 1e6:,.1f} MB ({moved / HOSTS / build.size:.1%})"
    return Row(name, f"{ours.text('.1f')} s, {share}", other, rate=rate, goal=goal)


def _timed(hosts: list[_Host], build: Manifest, do: Callable[[_Host, Manifest], int]) -> tuple[float, int]:
    """One host after the other, as they share no cores in a fleet; the seconds, and the bytes that were fetched."""
    _touch()
    began = time.monotonic()
    fetched = sum(do(host, build) for host in hosts)
    return time.monotonic() - began, fetched


def _touch() -> None:
    """So much memory has been written to: a virtual machine may be lent its own only then, and where the disk is in
    memory, it would be timed how fast that is done."""
    with mmap.mmap(-1, _TOUCHED) as memory:
        for at in range(0, _TOUCHED, mmap.PAGESIZE):
            memory[at] = 1


@contextlib.contextmanager
def _far(directory: Path, config: S3Config) -> Iterator[S3Config]:
    """A store that gives so much on a connection and no more, after a while, and to many at once. It holds what was
    put below ``directory``; a gateway before the one of this machine would be as slow as that for all of them together.
    """
    directory.mkdir()
    port = free_port()
    njs = next(path for d in MODULES if (path := Path(d) / NJS).exists())
    (directory / "late.js").write_text(
        f"export default {{late: r => {{ setTimeout(() => r.internalRedirect('/now' + r.uri), {FAR_MS}) }} }}"
    )
    (directory / "nginx.conf").write_text(
        f"load_module {njs};\nworker_processes 1;\npid {directory}/pid;\nerror_log stderr crit;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; client_body_temp_path {directory}/temp; js_import late from {directory}/late.js;\n"
        f"server {{ listen 127.0.0.1:{port};\n"
        "location / { js_content late.late; }\n"
        f"location /now/ {{ internal; alias {directory}/; limit_rate {FAR_MB}m; }} }} }}\n"
    )
    argv = ("nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "stderr", "-g", "daemon off;")
    if os.geteuid() == 0:
        argv = (*argv[:-1], "daemon off; user root;")
    with running(argv, directory / "log"):
        until("the far store listens", lambda: connects("127.0.0.1", port), 30)
        yield config.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})


def _put(store: ObjectStore, build: Manifest, far: Path) -> None:
    for key in (archive_key("bench", build.build), chunks_key("bench", build.build)):
        to = far / store.bucket / key
        to.parent.mkdir(parents=True, exist_ok=True)
        size = store.size(key)
        if size is None:
            raise Spoiled(f"{key} is not in the store")
        store.download(key, to, size=size)


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
    for f in chance.sample(range(FILES), FILES // 100):
        (directory / f"f{f:04}").write_bytes(chance.randbytes(BYTES))


class _Host:
    """One host's disk; each build is fetched and unpacked as its agent would, where services have their own users."""

    def __init__(self, config: S3Config, directory: Path) -> None:
        self._store = ObjectStore(config)
        self._config = config
        self._directory = directory
        self._layout = Layout(directory, directory / "run")
        self._kept = Kept(self._layout, "bench", 2)
        self._before: Path | None = None
        self._held = directory / "contents"

    def install(self, build: Manifest) -> int:
        """The bytes fetched."""
        file, release = self._layout.archive("bench", build.build), self._layout.release("bench", build.build)
        fetched = fetch(self._store, build, file, Means(self._kept))
        release.parent.mkdir(parents=True, exist_ok=True)
        held = read_or_none(self._held)
        earlier = Earlier(self._before, decode(held)) if self._before else Earlier()
        holds = unpack(file, release, digest=build.digest, limits=Limits(), seen=fetched.archive, earlier=earlier)
        if holds is not None:
            write_atomic(self._held, holds.encode())
        self._kept.keep(build.build, file, read_or_none(index_of(file)))
        self._before = release
        return fetched.bytes

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
