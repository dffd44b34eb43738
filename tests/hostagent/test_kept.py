"""The next build of a service: only what is new of it is fetched, and what is put together is the very archive."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from fleet.download import Pace
from fleet.files import read_or_none
from fleet.model import Manifest
from fleet.s3 import ObjectStore, chunks_key
from hostagent.fetch import Means, fetch
from hostagent.kept import Kept
from hostagent.layout import Layout, index_of
from pipeline import archive
from pipeline.publish import BadBuild as BadInStore
from pipeline.publish import publish, verify

FILES, BYTES = 60, 200_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twelve megabytes that do not compress."""
    tree = tmp_path / "tree"
    tree.mkdir()
    chance = random.Random(4)
    for n in range(FILES):
        (tree / f"f{n}").write_bytes(chance.randbytes(BYTES))
    return tree


class Bench:
    """A host's disk."""

    def __init__(self, store: ObjectStore, directory: Path, most: int = 2) -> None:
        self.store = store
        self.layout = Layout(directory / "host", directory / "run")
        self.kept = Kept(self.layout, "web", most)

    def have(self, build: Manifest) -> int:
        """Fetch and keep it, as a host that unpacks it does; the bytes fetched."""
        file = self.layout.archive("web", build.build)
        fetched = fetch(self.store, build, file, Means(self.kept)).bytes
        assert archive.digest_of(file) == build.digest
        self.kept.keep(build.build, file, read_or_none(index_of(file)))
        return fetched

    def files(self) -> list[str]:
        return sorted(p.name for p in self.layout.kept("web", "x").parent.iterdir())


@pytest.fixture
def bench(store: ObjectStore, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path)


def change(tree: Path, *files: int) -> None:
    """A word in the middle: what comes after it moves."""
    for n in files:
        old = (tree / f"f{n}").read_bytes()
        (tree / f"f{n}").write_bytes(old[: BYTES // 2] + b"a word" + old[BYTES // 2 :])


def test_of_a_build_that_changed_a_little_little_is_fetched(bench: Bench, store: ObjectStore, tree: Path) -> None:
    first = publish(store, tree, "web", "b1").manifest
    assert bench.have(first) == first.size
    change(tree, 7)
    (tree / "f3").unlink()
    (tree / "new").write_bytes(random.Random(5).randbytes(50_000))
    second = publish(store, tree, "web", "b2").manifest
    fetched = bench.have(second)
    assert 50_000 < fetched < second.size / 10
    assert bench.have(publish(store, tree, "web", "b3").manifest) == 0, "another name for the same bytes"


def test_what_a_disk_forgot_is_fetched(bench: Bench, store: ObjectStore, tree: Path) -> None:
    first = publish(store, tree, "web", "b1").manifest
    bench.have(first)
    file = bench.layout.kept("web", "b1")
    damaged = bytearray(file.read_bytes())
    damaged[first.size // 2] ^= 1
    file.write_bytes(damaged)
    assert 0 < bench.have(publish(store, tree, "web", "b2").manifest) < first.size / 10
    for wrong in (b"no index", b""):
        index_of(bench.layout.kept("web", "b1")).write_bytes(wrong)
        index_of(bench.layout.kept("web", "b2")).write_bytes(wrong)
        again = publish(store, tree, "web", f"c{len(wrong)}").manifest
        assert bench.have(again) == first.size
        bench.kept.forget(again.build)


def test_so_many_are_kept_and_no_more(store: ObjectStore, tree: Path, tmp_path: Path) -> None:
    for most in (0, 1, 2):
        bench = Bench(store, tmp_path / str(most), most)
        for build in ("b1", "b2", "b3"):
            bench.have(publish(store, tree, "web", build).manifest)
        kept = ("b1", "b2", "b3")[3 - most :] if most else ()
        if kept:
            assert bench.files() == [f"{b}.tar.zst{end}" for b in kept for end in ("", ".chunks")]
            bench.kept.forget("b3")
            assert "b3.tar.zst" not in bench.files()
        else:
            assert not bench.layout.kept("web", "x").parent.exists()


def test_an_index_that_is_not_the_manifests_is_not_used(bench: Bench, store: ObjectStore, tree: Path) -> None:
    first = publish(store, tree, "web", "b1").manifest
    bench.have(first)
    again = publish(store, tree, "web", "b2").manifest
    store.put(chunks_key("web", "b2"), b"pinrail chunks 1\n", "text/plain")
    with pytest.raises(BadInStore, match="is not the index of chunks that the manifest of b2 promises"):
        verify(store, "web", "b2")
    assert bench.have(again) == first.size


def test_a_fetch_that_was_cut_off_goes_on_with_both(bench: Bench, store: ObjectStore, tree: Path) -> None:
    bench.have(publish(store, tree, "web", "b1").manifest)
    change(tree, *range(0, FILES, 4))
    second = publish(store, tree, "web", "b2").manifest

    class Cut(Exception):
        pass

    def cut(so_far: int) -> None:
        if so_far > second.size // 2:
            raise Cut

    file = bench.layout.archive("web", "b2")
    with pytest.raises(Cut):
        fetch(store, second, file, Means(bench.kept), cut)
    assert not file.exists()
    assert bench.have(second) < second.size / 2


def test_fetching_keeps_to_its_pace(bench: Bench, store: ObjectStore, tree: Path) -> None:
    build = publish(store, tree, "web", "b1").manifest
    begun = time.monotonic()
    fetch(store, build, bench.layout.archive("web", "b1"), Means(bench.kept, Pace(build.size * 1.0)))
    # The last bytes need not be waited for: at most a piece of each worker.
    assert time.monotonic() - begun > 0.7
