"""From a real store to a verified archive, or to a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.model import Manifest
from fleet.s3 import ObjectStore, archive_key, manifest_key
from hostagent.fetch import BadBuild, Means, fetch, manifest
from hostagent.kept import Kept
from hostagent.layout import Layout
from tests.hostagent.fleet import digest_of

DATA = bytes(range(256)) * 100


def promised(**changed: object) -> Manifest:
    m = {"service": "app", "build": "b1", "digest": digest_of(DATA), "size": len(DATA), "unpacked": 10, "files": 1}
    return Manifest.model_validate({**m, **changed})


def means(directory: Path, **more: int) -> Means:
    return Means(Kept(Layout(directory / "host", directory / "run"), "app", 2), **more)


def put(store: ObjectStore, m: Manifest | bytes, data: bytes = DATA) -> None:
    raw = m if isinstance(m, bytes) else m.encode()
    store.put_new(archive_key("app", "b1"), data, "application/zstd")
    store.put_new(manifest_key("app", "b1"), raw, "application/json")


def test_fetched_whole_and_nothing_beside_it(store: ObjectStore, tmp_path: Path) -> None:
    put(store, promised())
    seen: list[int] = []
    archive = tmp_path / "archives/b1.tar.zst"
    fetched = fetch(store, manifest(store, "app", "b1", digest_of(DATA)), archive, means(tmp_path), seen.append)
    assert fetched.bytes == len(DATA)
    assert archive.read_bytes() == DATA and seen[-1] == len(DATA)
    assert [p.name for p in archive.parent.iterdir()] == ["b1.tar.zst"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (b"not json", "is not a manifest"),
        (b'{"service": "app"}', "is not a manifest"),
        (promised(service="other"), "is the manifest of other b1"),
        (promised(build="b2"), "is the manifest of app b2"),
        (promised(digest=f"sha256:{'1' * 64}"), "is enabled"),
    ],
)
def test_a_manifest_that_is_not_the_one_enabled(store: ObjectStore, found: Manifest | bytes, words: str) -> None:
    put(store, found)
    with pytest.raises(BadBuild, match=words):
        manifest(store, "app", "b1", digest_of(DATA))


def test_no_such_build(store: ObjectStore) -> None:
    with pytest.raises(BadBuild, match="there is no build b1 of app"):
        manifest(store, "app", "b1", digest_of(DATA))


def test_a_wrong_archive_is_thrown_away_and_fetched_again(store: ObjectStore, tmp_path: Path) -> None:
    wrong = bytes(reversed(DATA))
    put(store, promised(), wrong)
    with pytest.raises(BadBuild, match="promises"):
        fetch(store, promised(), tmp_path / "b1.tar.zst", means(tmp_path))
    assert list(tmp_path.iterdir()) == []
    fetch(store, promised(digest=digest_of(wrong)), tmp_path / "b1.tar.zst", means(tmp_path))
    assert (tmp_path / "b1.tar.zst").read_bytes() == wrong


def test_what_was_left_of_another_download_does_no_harm(store: ObjectStore, tmp_path: Path) -> None:
    put(store, promised())
    (tmp_path / "b1.tar.zst.part").write_bytes(b"x" * len(DATA))
    (tmp_path / "b1.tar.zst.part.ranges").write_text("nonsense")
    fetch(store, promised(), tmp_path / "b1.tar.zst", means(tmp_path))
    assert (tmp_path / "b1.tar.zst").read_bytes() == DATA


def test_no_room(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(BadBuild, match=r"needs 10000000000025600 bytes on .*, and [0-9]+ are free"):
        fetch(store, promised(unpacked=10**16), tmp_path / "b1.tar.zst", means(tmp_path))


def test_what_is_kept_free_is_not_for_builds(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(BadBuild, match=r"free \([0-9]+ of them are not for builds: disk_reserve\)"):
        fetch(store, promised(), tmp_path / "b1.tar.zst", means(tmp_path, reserve=10**16))
