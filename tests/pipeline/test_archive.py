"""The same tree gives the same bytes, and what a host would refuse is refused before it is uploaded."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.unpack import Limits, unpack
from pipeline import archive
from pipeline.archive import BadArchive, BadTree, Packed

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=12).filter(
    lambda n: n not in (".", "..", ".git") and len(n.encode()) < 100
)
#: A tree: name -> (content, executable), or a tree.
TREES = st.recursive(
    st.tuples(st.binary(max_size=2000), st.booleans()),
    lambda children: st.dictionaries(NAMES, children, max_size=5),
    max_leaves=12,
)
ROOTS = st.dictionaries(NAMES, TREES, min_size=1, max_size=5)


Tree = dict[str, "tuple[bytes, bool] | Tree"]


def make(tree: Tree, at: Path, *, backwards: bool, umask: int, time: float) -> None:
    """The same tree, by another hand."""
    at.mkdir()
    for name, node in sorted(tree.items(), reverse=backwards):
        path = at / name
        if isinstance(node, dict):
            make(node, path, backwards=backwards, umask=umask, time=time)
            continue
        content, executable = node
        path.write_bytes(content)
        path.chmod((0o777 if executable else 0o666) & ~umask)
        os.utime(path, (time, time))
    os.utime(at, (time, time))


def pack(tree: Path, to: Path) -> Packed:
    return archive.pack(archive.survey(tree), to)


def holds_a_file(tree: tuple[bytes, bool] | Tree) -> bool:
    return not isinstance(tree, dict) or any(holds_a_file(n) for n in tree.values())


@settings(max_examples=60, deadline=None)
@given(tree=ROOTS.filter(holds_a_file))
def test_the_same_tree_gives_the_same_bytes_and_comes_out_the_same(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        make(tree, top / "one", backwards=False, umask=0o022, time=1.0)
        make(tree, top / "two", backwards=True, umask=0o077, time=1_700_000_000.5)
        one, two = pack(top / "one", top / "one.zst"), pack(top / "two", top / "two.zst")
        assert one == two
        assert (top / "one.zst").read_bytes() == (top / "two.zst").read_bytes()
        assert archive.inspect(top / "one.zst") == one
        # And a host unpacks just that, within just those limits.
        unpack(top / "one.zst", top / "out", digest=one.digest, limits=Limits(bytes=one.unpacked, files=one.files))
        assert pack(top / "out", top / "out.zst") == one


def tree_with(tmp_path: Path, *names: str) -> Path:
    tree = tmp_path / "tree"
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    return tree


def members(file: Path) -> list[tarfile.TarInfo]:
    with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return tarfile.open(fileobj=stream, mode="r|").getmembers()


def test_nothing_of_the_machine_is_in_it(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "b/x", "a", "b.txt")
    (tree / "b" / "x").chmod(0o4711)
    (tree / "link").symlink_to("b/x")
    (tree / "empty").mkdir(mode=0o700)
    packed = pack(tree, tmp_path / "t.zst")
    found = members(tmp_path / "t.zst")
    assert [m.name for m in found] == ["a", "b", "b/x", "b.txt", "empty", "link"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found} == {(0, 0, "", "", 0)}
    assert {m.name: stat.S_IMODE(m.mode) for m in found if not m.issym()} == {
        "a": 0o644,
        "b": 0o755,
        "b/x": 0o755,
        "b.txt": 0o644,
        "empty": 0o755,
    }
    assert found[-1].linkname == "b/x"
    assert (packed.files, packed.unpacked) == (4, len("b/x" + "a" + "b.txt"))


def test_a_hard_link_is_a_file_of_its_own(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a")
    (tree / "b").hardlink_to(tree / "a")
    pack(tree, tmp_path / "t.zst")
    assert [(m.name, m.isreg(), m.size) for m in members(tmp_path / "t.zst")] == [("a", True, 1), ("b", True, 1)]


def test_git_at_the_top_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, ".git/HEAD", ".gitignore", "vendored/.git/HEAD", ".hidden")
    pack(tree, tmp_path / "t.zst")
    names = [m.name for m in members(tmp_path / "t.zst")]
    assert names == [".gitignore", ".hidden", "vendored", "vendored/.git", "vendored/.git/HEAD"]


def test_a_directory_named_through_a_symlink_is_the_same(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a", "d/b")
    (tree / "up").symlink_to("d/../a")
    (tmp_path / "current").symlink_to(tree)
    assert pack(tmp_path / "current", tmp_path / "1") == pack(tree, tmp_path / "2")


def test_what_cannot_be_part_of_a_build_is_named(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a")

    def refused(name: bytes | str, why: str) -> None:
        with pytest.raises(BadTree, match=why):
            archive.survey(tree)
        os.remove(os.path.join(os.fsencode(tree), os.fsencode(name)))  # noqa: PTH107, PTH118  # bytes

    os.mkfifo(tree / "pipe")
    refused("pipe", "pipe: is a fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tree / "sock"))
    refused("sock", "sock: is a socket")
    (tree / "two\nlines").write_text("")
    refused("two\nlines", r"'two\\nlines': its name contains a newline")
    (tree / "esc\x1b[31m").write_text("")
    refused("esc\x1b[31m", "control character")
    (tree / "c1\x9b").write_text("")
    refused("c1\x9b", "control character")
    for one, other in (("Read", "READ"), ("caf\u00e9", "cafe\u0301")):
        (tree / one).mkdir()
        (tree / other).write_text("")
        first, second = sorted((one, other), key=str.encode)
        refused(other, f"{second}: has the same name as {first}, but for case or accents; rename one")
    with open(os.fsencode(tree) + b"/latin\xe9", "wb"):  # noqa: PTH123  # bytes
        pass
    refused(b"latin\xe9", "not UTF-8")
    for target, why in (
        ("/etc/passwd", "absolute path '/etc/passwd'"),
        ("../secret", "leads outside"),
        ("x/../../tree/a", "leads outside"),
        ("new\nline", "newline"),
        (b"\xff", "not UTF-8"),
    ):
        os.symlink(target, os.fsencode(tree) + b"/link")  # noqa: PTH211  # bytes
        refused("link", f"link: a symlink.*{why}")


def test_a_symlink_that_leads_outside_by_way_of_another_is_named(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "deep/er/a")
    (tree / "short").symlink_to("deep/er")
    (tree / "deep" / "er" / "fine").symlink_to("../../deep")
    archive.survey(tree)
    (tree / "z").symlink_to("short/../../../x")
    with pytest.raises(BadTree, match="z: a symlink that leads outside"):
        archive.survey(tree)


def test_a_symlink_to_nothing_inside_is_kept(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a")
    (tree / "later").symlink_to("made/at/start")
    packed = pack(tree, tmp_path / "t.zst")
    unpack(tmp_path / "t.zst", tmp_path / "out", digest=packed.digest, limits=Limits())
    assert (tmp_path / "out" / "later").readlink() == Path("made/at/start")


@pytest.mark.skipif(os.getuid() != 0, reason="making devices takes root")
def test_a_device_is_named(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a")
    try:
        os.mknod(tree / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this root may not make devices")
    with pytest.raises(BadTree, match="null: is a device"):
        archive.survey(tree)


def test_nothing_to_publish_is_said(tmp_path: Path) -> None:
    (tmp_path / "tree" / "only" / "directories").mkdir(parents=True)
    (tmp_path / "tree" / ".git").mkdir()
    (tmp_path / "tree" / ".git" / "HEAD").write_text("")
    with pytest.raises(BadTree, match="holds no files"):
        archive.survey(tmp_path / "tree")
    with pytest.raises(BadTree, match=r"cannot read .*none: No such file"):
        archive.survey(tmp_path / "none")


def test_too_deep_is_named(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "/".join(["d"] * 64) + "/a")
    with pytest.raises(BadTree, match="deeper than 64"):
        archive.survey(tree)


@pytest.mark.parametrize("change", [b"", b"longer than it was", b"gone"])
def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path, change: bytes) -> None:
    tree = tree_with(tmp_path, "file")
    entries = archive.survey(tree)
    if change == b"gone":
        (tree / "file").unlink()
    else:
        (tree / "file").write_bytes(change)
    with pytest.raises(BadTree, match=r"file: (changed while it was read|cannot be read: No such file)"):
        archive.pack(entries, tmp_path / "t.zst")


def test_progress_grows_to_the_whole(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "a", "b")
    (tree / "big").write_bytes(os.urandom(3 * 1024 * 1024 + 1))
    seen: list[int] = []
    packed = archive.pack(archive.survey(tree), tmp_path / "t.zst", seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == packed.unpacked


def test_a_long_name_and_a_large_number_of_files_survive(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, "/".join(["x" * 200] * 5) + "/ü" + "y" * 200)
    for n in range(1500):
        (tree / f"{n}.txt").write_text(str(n))
    packed = pack(tree, tmp_path / "t.zst")
    unpack(tmp_path / "t.zst", tmp_path / "out", digest=packed.digest, limits=Limits())
    assert pack(tmp_path / "out", tmp_path / "again.zst") == packed


def test_hosts_and_we_agree_on_the_limits() -> None:
    theirs = Limits()
    ours = Limits(bytes=archive.BYTES_MAX, files=archive.FILES_MAX, members=archive.MEMBERS_MAX)
    assert ours == theirs


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_archive_is_not_readable(tmp_path: Path, damage: str) -> None:
    tree = tree_with(tmp_path, "a")
    (tree / "big").write_bytes(os.urandom(100_000))
    good = tmp_path / "good.zst"
    pack(tree, good)
    data = bytearray(good.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"" if damage == "empty" else b"not an archive at all")
    (tmp_path / "bad.zst").write_bytes(data)
    with pytest.raises(BadArchive):
        archive.inspect(tmp_path / "bad.zst")
    shutil.rmtree(tree)
