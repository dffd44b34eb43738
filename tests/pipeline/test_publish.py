"""Publishing into a real S3: a name means the same bytes for ever, whatever is cut off when."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.names import BadName
from fleet.s3 import ObjectStore, archive_key, manifest_key
from hostagent import fetch
from hostagent.kept import Kept
from hostagent.layout import Layout
from pipeline import archive, publish
from pipeline.git import Origin, origin
from pipeline.publish import BadBuild, BuildTaken, NoSuchBuild


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_text("content")
    return tree


def test_a_published_build_is_what_a_host_fetches(store: ObjectStore, tree: Path, tmp_path: Path) -> None:
    done = publish.publish(store, tree, "web", "b1")
    assert done.new
    m = done.manifest
    assert (m.service, m.build, m.files, m.unpacked, m.commit) == ("web", "b1", 1, 7, None)
    assert "@" in m.builder
    assert publish.show(store, "web", "b1") == m
    there = ["builds/web/b1/build.tar.zst", "builds/web/b1/chunks", "builds/web/b1/manifest.json"]
    assert store.keys("builds/") == there
    means = fetch.Means(Kept(Layout(tmp_path, tmp_path), "web", 2))
    fetch.fetch(store, fetch.manifest(store, "web", "b1", m.digest), tmp_path / "a.zst", means)
    assert archive.digest_of(tmp_path / "a.zst") == m.digest


def test_the_same_bytes_again_succeed_and_change_nothing(store: ObjectStore, tree: Path) -> None:
    first = publish.publish(store, tree, "web", "b1")
    (tree / "d" / "f").touch()
    again = publish.publish(store, tree, "web", "b1")
    assert not again.new
    assert again.manifest == first.manifest


def test_other_bytes_under_the_same_name_are_refused_and_change_nothing(store: ObjectStore, tree: Path) -> None:
    first = publish.publish(store, tree, "web", "b1")
    before = store.get(archive_key("web", "b1"))
    (tree / "d" / "f").write_text("other")
    with pytest.raises(BuildTaken, match=r"b1 of web is there already with other bytes .*choose another name"):
        publish.publish(store, tree, "web", "b1")
    assert publish.show(store, "web", "b1") == first.manifest
    assert store.get(archive_key("web", "b1")) == before
    assert publish.publish(store, tree, "web", "b2").new


def cut_off(store: ObjectStore, tree: Path, tmp_path: Path) -> None:
    """What a publish leaves that was killed between its two writes."""
    file = tmp_path / "cut.zst"
    archive.pack(archive.survey(tree), file)
    store.put_new(archive_key("web", "b1"), file, "application/zstd")


def test_a_publish_that_was_cut_off_is_finished_by_the_next(store: ObjectStore, tree: Path, tmp_path: Path) -> None:
    cut_off(store, tree, tmp_path)
    assert publish.builds(store, "web") == ([], [])
    assert publish.publish(store, tree, "web", "b1").new
    publish.verify(store, "web", "b1")


@pytest.mark.parametrize("other", ["CONTENT", "much longer, " * 50])
def test_a_publish_that_was_cut_off_is_not_finished_with_other_bytes(
    store: ObjectStore, tree: Path, tmp_path: Path, other: str
) -> None:
    cut_off(store, tree, tmp_path)
    (tree / "d" / "f").write_text(other)
    with pytest.raises(BuildTaken, match="and no manifest"):
        publish.publish(store, tree, "web", "b1")
    assert store.get(manifest_key("web", "b1")) is None


def test_of_publishers_at_once_one_wins_and_nothing_is_mixed(store: ObjectStore, tmp_path: Path) -> None:
    trees = []
    for n in range(4):
        trees.append(tmp_path / str(n))
        trees[-1].mkdir()
        (trees[-1] / "f").write_text(str(n % 2))  # two contents, twice each
    start = threading.Barrier(4)

    def run(tree: Path) -> str:
        start.wait(10)
        try:
            return publish.publish(store, tree, "web", "b1").manifest.digest
        except BuildTaken:
            return "taken"

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, trees))
    assert results[0] == results[2]
    assert results[1] == results[3]
    assert results.count("taken") == 2
    assert publish.verify(store, "web", "b1").digest in results


def test_builds_are_listed_the_newest_first_and_a_broken_one_is_said(store: ObjectStore, tree: Path) -> None:
    for name in ("b1", "b2"):
        publish.publish(store, tree, "web", name)
    publish.publish(store, tree, "web-2", "x")
    store.put_new(manifest_key("web", "odd"), b"{}", "application/json")
    store.put_new("builds/web/not a name/manifest.json", b"{}", "application/json")
    store.put_new(
        manifest_key("web", "lie"),
        publish.show(store, "web", "b1").encode(),
        "application/json",
    )
    found, bad = publish.builds(store, "web")
    assert sorted(m.build for m in found) == ["b1", "b2"]
    assert found == sorted(found, key=lambda m: m.created, reverse=True)
    assert len(bad) == 3
    assert any("lie" in b and "web b1" in b for b in bad)


def test_what_is_not_there_is_said(store: ObjectStore) -> None:
    with pytest.raises(NoSuchBuild, match="no build b9 of web"):
        publish.show(store, "web", "b9")
    assert publish.builds(store, "nobody") == ([], [])


@pytest.mark.parametrize(("service", "build"), [("web", "../x"), ("Web", "b"), ("web", ""), ("web", "a b")])
def test_a_bad_name_touches_nothing(store: ObjectStore, tree: Path, service: str, build: str) -> None:
    with pytest.raises(BadName):
        publish.publish(store, tree, service, build)
    assert store.keys("") == []


def lying(store: ObjectStore, tree: Path, tmp_path: Path, **lies: object) -> None:
    """A build whose manifest is not true."""
    cut_off(store, tree, tmp_path)
    packed = archive.inspect(tmp_path / "cut.zst")
    honest = publish._manifest("web", "b1", packed, Origin())
    store.put_new(manifest_key("web", "b1"), honest.model_copy(update=lies).encode(), "application/json")


@pytest.mark.parametrize(
    ("lies", "why"),
    [({"digest": "sha256:" + "0" * 64}, "digest"), ({"files": 7}, "holds 1 files"), ({"unpacked": 8}, "of 7 bytes")],
)
def test_a_build_that_is_not_what_it_says_does_not_verify(
    store: ObjectStore, tree: Path, tmp_path: Path, lies: dict[str, object], why: str
) -> None:
    lying(store, tree, tmp_path, **lies)
    with pytest.raises(BadBuild, match=why):
        publish.verify(store, "web", "b1")


def test_an_archive_that_is_none_does_not_verify(store: ObjectStore) -> None:
    packed = archive.Packed(f"sha256:{hashlib.sha256(b'junk').hexdigest()}", 4, 0, 1)
    store.put_new(archive_key("web", "b1"), b"junk", "application/zstd")
    store.put_new(
        manifest_key("web", "b1"), publish._manifest("web", "b1", packed, Origin()).encode(), "application/json"
    )
    with pytest.raises(BadBuild, match="not a readable archive"):
        publish.verify(store, "web", "b1")


# --- names from git -----------------------------------------------------------------------------------------------


def git(directory: Path, *args: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *args], cwd=directory, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_name_it_is_the_commit(store: ObjectStore, tree: Path) -> None:
    git(tree, "init", "-q", "-b", "trunk")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "x")
    m = publish.publish(store, tree / "d", "web").manifest
    assert m.commit == git(tree, "rev-parse", "HEAD")
    assert m.branch == "trunk"
    assert m.build == git(tree, "rev-parse", "--short", "HEAD")
    git(tree, "checkout", "-q", "--detach")
    assert origin(tree).branch is None


def test_without_a_commit_it_is_the_digest(store: ObjectStore, tree: Path) -> None:
    m = publish.publish(store, tree, "web").manifest
    assert m.build == m.digest[7:19]
    git(tree, "init", "-q")
    assert origin(tree) == Origin()


def test_where_there_is_no_git_nothing_is_known(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tree))
    assert origin(tree) == Origin()


def test_a_hooks_own_checkout_is_not_ours(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "x")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert origin(tree) == Origin()
