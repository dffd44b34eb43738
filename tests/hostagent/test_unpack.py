"""Archives, honest and hostile. Whatever is in them: a release is complete or absent, and nothing lies beside it."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hostagent.unpack import BadArchive, Earlier, Limits, sweep, unpack
from pipeline.archive import pack, survey

Add = Callable[[tarfile.TarFile], None]


def entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    mode: int = 0o644,
    pax: dict[str, str] | None = None,
) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode, info.size = kind, target, mode, len(content)
        info.pax_headers = pax or {}
        tar.addfile(info, io.BytesIO(content))

    return add


def directory(name: str) -> Add:
    return entry(name, kind=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Add:
    return entry(name, kind=tarfile.SYMTYPE, target=target)


def tar_of(*entries: Add, format: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=format) as tar:
        for add in entries:
            add(tar)
    return raw.getvalue()


class Box:
    """A directory to unpack in, and a look at what came of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.releases = directory / "releases"
        self.release = self.releases / "b1"
        self.like: Path | None = None

    def raw(self, data: bytes, limits: Limits | None = None, digest: str | None = None) -> Path:
        archive = self.directory / "a.tar.zst"
        archive.write_bytes(data)
        promised = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        unpack(archive, self.release, digest=promised, limits=limits or Limits(), earlier=Earlier(self.like))
        return self.release

    def tar(self, tar: bytes, limits: Limits | None = None) -> Path:
        return self.raw(zstandard.compress(tar), limits)

    def of(self, *entries: Add, limits: Limits | None = None) -> Path:
        return self.tar(tar_of(*entries), limits)

    def nothing(self) -> bool:
        """No release, nothing half done, nothing outside."""
        here = {p.name for p in self.directory.iterdir()} - {"a.tar.zst", "releases"}
        return not here and not list(self.releases.iterdir())


@pytest.fixture
def box(tmp_path: Path) -> Box:
    (tmp_path / "box").mkdir()
    return Box(tmp_path / "box")


# -- honest -----------------------------------------------------------------------------------------------------------


def test_files_directories_and_links(box: Box) -> None:
    old = os.umask(0o077)  # of no consequence
    try:
        release = box.of(
            entry("serve.py", b"x" * 700_000, mode=0o4755),
            directory("static"),
            entry("static/a", b"a", mode=0o666),
            entry("deep/er/b", b"b"),
            directory("deep"),
            link("deep/er/up", "../../static/a"),
            link("now", "static"),
            link("dangling", "static/not-there"),
            entry("leer/empty"),
        )
    finally:
        os.umask(old)
    assert (release / "serve.py").read_bytes() == b"x" * 700_000
    assert (release / "deep/er/up").read_text() == "a" and (release / "now/a").read_text() == "a"
    assert mode(release / "serve.py") == 0o755 and mode(release / "static/a") == 0o644
    assert {mode(release), mode(release / "static"), mode(release / "deep/er")} == {0o755}
    assert (release / "leer/empty").read_bytes() == b""
    assert [p.name for p in box.releases.iterdir()] == ["b1"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    "name", ["d" * 90 + "/" + "f" * 90, "ü" * 120, "a/" * 50 + "b", "wörter mit leer zeichen $(x)"]
)
def test_long_and_strange_names(box: Box, name: str) -> None:
    assert (box.of(entry(name, b"1")) / name).read_bytes() == b"1"


def test_old_tar_without_pax(box: Box) -> None:
    long = "d" * 90 + "/" + "f" * 90
    release = box.tar(tar_of(entry(long, b"1"), directory("e"), format=tarfile.USTAR_FORMAT))
    assert (release / long).read_bytes() == b"1" and (release / "e").is_dir()


def test_what_the_pipeline_packs(box: Box, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "static/deep").mkdir(parents=True)
    (tree / "static/deep" / ("ü" * 100)).write_bytes(b"1" * 300_000)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "now").symlink_to("static/deep")
    (tree / "empty").mkdir()
    packed = pack(survey(tree), box.directory / "a.tar.zst")
    limits = Limits(bytes=packed.unpacked, files=packed.files)
    release = box.raw((box.directory / "a.tar.zst").read_bytes(), limits, packed.digest)
    assert sorted(p.relative_to(release) for p in release.rglob("*")) == sorted(
        p.relative_to(tree) for p in tree.rglob("*")
    )
    assert os.access(release / "run", os.X_OK) and (release / "now" / ("ü" * 100)).stat().st_size == 300_000


def test_an_empty_archive(box: Box) -> None:
    assert list(box.of().iterdir()) == []


def test_what_a_killed_unpacking_left_is_swept_and_does_not_matter(box: Box) -> None:
    leftover = box.releases / ".unpacking-b1"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    assert not (box.of(entry("a")) / "half").exists()
    (box.releases / ".unpacking-b2").mkdir()
    sweep(box.releases)
    assert [p.name for p in box.releases.iterdir()] == ["b1"]


def test_giving_up_leaves_nothing(box: Box) -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        raise Enough

    archive = box.directory / "a.tar.zst"
    archive.write_bytes(zstandard.compress(tar_of(entry("a", b"1"))))
    with pytest.raises(Enough):
        unpack(archive, box.release, digest="sha256:", limits=Limits(), check=check)
    assert box.nothing()


# -- hostile ----------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, tuple[list[Add], str]] = {
    "absolute": ([entry("/etc/evil", b"x")], "/etc/evil: an absolute path"),
    "up": ([entry("../evil", b"x")], "../evil: a path with '..'"),
    "up inside": ([entry("a/../../evil", b"x")], "'..'"),
    "up at the end": ([directory("a/..")], "'..'"),
    "dot": ([entry("./a", b"x")], "or '.'"),
    "double slash": ([entry("a//b", b"x")], "empty part"),
    "no name": ([entry("", b"x")], "empty part"),
    "pax up": ([entry("ok", b"x", pax={"path": "../evil"})], "../evil: a path with '..'"),
    "pax absolute": ([entry("ok", b"x", pax={"path": "/evil"})], "/evil: an absolute path"),
    "too deep": ([entry("d/" * 70 + "f")], "too deep"),
    "part too long": ([entry("n" * 300)], "too long"),
    "hard link": ([entry("a"), entry("b", kind=tarfile.LNKTYPE, target="a")], "b: is a hard link"),
    "hard link out": ([entry("b", kind=tarfile.LNKTYPE, target="/etc/passwd")], "a hard link"),
    "character device": ([entry("null", kind=tarfile.CHRTYPE)], "null: is a character device"),
    "block device": ([entry("sda", kind=tarfile.BLKTYPE)], "sda: is a block device"),
    "fifo": ([entry("pipe", kind=tarfile.FIFOTYPE)], "pipe: is a fifo"),
    "sparse": ([entry("s", kind=tarfile.GNUTYPE_SPARSE)], "a sparse file"),
    "pax sparse": ([entry("s", b"x", pax={"GNU.sparse.major": "1"})], "not allowed"),
    "contiguous": ([entry("c", kind=tarfile.CONTTYPE)], "a contiguous file"),
    "unknown type": ([entry("v", kind=b"V")], "unknown type"),
    "twice": ([entry("a", b"1"), entry("a", b"2")], "a: is in the archive twice"),
    "directory twice": ([directory("a"), directory("a")], "a: is in the archive twice"),
    "implied directory twice": ([entry("a/b"), directory("a"), directory("a")], "a: is in the archive twice"),
    "file over directory": ([directory("a"), entry("a", b"x")], "twice"),
    "file over implied directory": ([entry("a/b"), entry("a", b"x")], "twice"),
    "directory over file": ([entry("a", b"x"), directory("a")], "twice"),
    "below a file": ([entry("a", b"x"), entry("a/b", b"x")], "a/b: lies below a, which is not a directory"),
    "through a link": ([directory("d"), link("l", "d"), entry("l/evil", b"x")], "l/evil: lies below l"),
    "over a link": ([link("l", "x"), entry("l", b"x")], "twice"),
    "link to absolute": ([link("l", "/etc")], "l: a symlink to the absolute path /etc"),
    "link up": ([link("l", "../x")], "l: a symlink that leads outside"),
    "link up from below": ([directory("a"), link("a/l", "../../x")], "a/l: a symlink that leads outside"),
    "link up and back": ([link("l", "../releases/x")], "leads outside"),
    "link through a link": (
        [directory("a"), link("a/here", "."), link("out", "a/here/../../x")],
        "out: a symlink that leads outside",
    ),
    "links that add up": (
        [directory("a"), directory("a/b"), link("c", "a/b"), link("out", "c/../../../x"), link("n", "c")],
        "out: a symlink",
    ),
    "newline": ([entry("two\nlines")], r"'two\nlines': a newline or another control character"),
    "escape": ([entry("d/\x1b[2J")], r"'d/\x1b[2J': a newline or another control character"),
    "pax newline": ([entry("ok", pax={"path": "o\nk"})], r"'o\nk': a newline"),
    "link to newline": ([link("l", "a\nb")], r"l: a symlink to 'a\nb', which has a control character"),
    "case": ([entry("Readme"), entry("README")], "README: the same name as Readme, but for case"),
    "case of a directory": ([entry("a/x"), entry("A/y")], "A/y: the same name as a, but for case"),
    "case of a directory, named": ([directory("a"), directory("A")], "A: the same name as a, but for case"),
    "case of a file and a link": ([link("l", "x"), entry("L")], "L: the same name as l, but for case"),
    "case beyond ascii": ([entry("STRASSE"), entry("straße")], "straße: the same name as STRASSE"),
    "accents": ([entry("caf\u00e9"), entry("cafe\u0301")], "cafe\u0301: the same name as caf\u00e9, but for case or"),
    "link to nothing": ([link("l", "")], "a symlink to nothing"),
    "directory with content": ([entry("d", b"x", kind=tarfile.DIRTYPE)], "with content"),
    "pax link": ([entry("l", kind=tarfile.SYMTYPE, target="ok", pax={"linkpath": "/etc"})], "absolute path /etc"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members(box: Box, name: str) -> None:
    entries, words = HOSTILE[name]
    with pytest.raises(BadArchive) as e:
        box.of(entry("first", b"good"), *entries)
    assert words in str(e.value)
    assert box.nothing()


def test_a_bomb_of_bytes(box: Box) -> None:
    with pytest.raises(BadArchive, match="more than the 1000 bytes"):
        box.of(entry("a", b"0" * 600), entry("b", b"0" * 600), limits=Limits(bytes=1000))
    assert box.nothing()


def test_a_bomb_of_bytes_that_lies_about_its_size_is_not_even_read(box: Box) -> None:
    with pytest.raises(BadArchive, match="more than the 1000 bytes"):
        box.of(entry("a", b"x", pax={"size": str(10**15)}), limits=Limits(bytes=1000))


@pytest.mark.parametrize(("limits", "words"), [(Limits(files=5), "5 files"), (Limits(members=5), "5 members")])
def test_a_bomb_of_files(box: Box, limits: Limits, words: str) -> None:
    make = entry if "files" in words else directory
    with pytest.raises(BadArchive, match=words):
        box.of(*(make(f"f{i}") for i in range(6)), limits=limits)
    assert box.nothing()


def test_a_bomb_of_memory(box: Box) -> None:
    window = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=window)
    frame = compressor.compressobj()
    data = frame.compress(tar_of(entry("a", b"1"))) + frame.flush()
    with pytest.raises(BadArchive, match="not a zstd archive"):
        box.raw(data)
    with pytest.raises(BadArchive, match="a PAX header of"):
        box.of(entry("a", pax={"comment": "x" * 100_000}))
    assert box.nothing()


def test_gnu_long_names_and_global_headers_are_refused(box: Box) -> None:
    with pytest.raises(BadArchive, match="a GNU long name"):
        box.tar(tar_of(entry("n" * 200), format=tarfile.GNU_FORMAT))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "/evil"}) as tar:
        entry("a")(tar)
    with pytest.raises(BadArchive, match="a global PAX header"):
        box.tar(raw.getvalue())


# -- broken -----------------------------------------------------------------------------------------------------------

GOOD = tar_of(entry("a", b"1" * 5000), entry("b/c", b"2" * 5000))


def test_another_digest(box: Box) -> None:
    with pytest.raises(BadArchive, match="was promised"):
        box.raw(zstandard.compress(GOOD), digest=f"sha256:{'0' * 64}")
    assert box.nothing()


def test_something_behind_the_frame_counts_for_the_digest(box: Box) -> None:
    data = zstandard.compress(GOOD)
    with pytest.raises(BadArchive):
        box.raw(data + zstandard.compress(b"more"), digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def test_something_behind_the_archive(box: Box) -> None:
    with pytest.raises(BadArchive, match="behind the end"):
        box.tar(GOOD + b"x")


@pytest.mark.parametrize("data", [b"", b"not zstd", zstandard.compress(b""), zstandard.compress(b"x" * 2000)])
def test_not_an_archive(box: Box, data: bytes) -> None:
    with pytest.raises(BadArchive):
        box.raw(data)
    assert box.nothing()


def test_cut_off_anywhere(box: Box) -> None:
    data = zstandard.compress(GOOD)
    for length in range(len(data)):
        with pytest.raises(BadArchive):
            box.raw(data[:length])
    for length in range(0, 2 * (512 + 5120) + 2 * 512, 173):  # the end is there, padding is not
        with pytest.raises(BadArchive):
            box.tar(GOOD[:length])
    assert box.nothing()


def test_any_damage_is_an_error_or_harmless(box: Box) -> None:
    """Bits flipped anywhere in the tar: never another exception, never anything outside."""
    chance = random.Random(7)
    for _ in range(400):
        damaged = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            box.tar(bytes(damaged))
        except BadArchive:
            assert box.nothing()
        else:
            assert [p.name for p in box.releases.iterdir()] == ["b1"]
            for p in sorted(box.release.rglob("*"), reverse=True):
                p.rmdir() if p.is_dir() else p.unlink()
            box.release.rmdir()


# -- beside an earlier release ----------------------------------------------------------------------------------------


def test_what_an_earlier_release_has_is_linked_and_what_differs_at_all_is_not(box: Box) -> None:
    big = random.Random(1).randbytes(700_000)
    old = box.of(
        entry("same", big),
        entry("deep/same", b"x"),
        entry("end", big + b"1"),
        entry("start", b"1" + big),
        entry("size", b"12"),
        entry("mode", b"m"),
        entry("kind", b"k"),
        entry("empty"),
        entry("elsewhere/f", b"f"),
        link("linked", "elsewhere"),
        entry("gone", b"g"),
    ).rename(box.releases / "b0")
    before = {p: p.read_bytes() for p in old.rglob("*") if p.is_file()}
    contents = {"same": big, "deep/same": b"x", "end": big + b"2", "start": b"2" + big, "size": b"1"}
    box.like = old
    release = box.of(
        *(entry(name, content) for name, content in contents.items()),
        entry("mode", b"m", mode=0o755),
        link("kind", "same"),
        entry("empty"),
        entry("linked/f", b"f"),
    )
    for name, content in contents.items():
        assert (release / name).read_bytes() == content, name
    assert mode(release / "mode") == 0o755 and mode(old / "mode") == 0o644
    assert (release / "kind").is_symlink() and (release / "linked/f").read_bytes() == b"f"
    shared = {p.name for p in release.rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_nlink > 1}
    assert shared == {"same"} and (release / "deep/same").stat().st_ino == (old / "deep/same").stat().st_ino
    assert (release / "linked/f").stat().st_nlink == 1, "through a symlink nothing is looked at"
    assert {p: p.read_bytes() for p in old.rglob("*") if p.is_file()} == before


def test_an_archive_that_is_refused_leaves_the_earlier_release_alone(box: Box) -> None:
    old = box.of(entry("a", b"a" * 1000)).rename(box.releases / "b0")
    box.like = old
    data = zstandard.compress(tar_of(entry("a", b"a" * 1000), entry("b", b"b")))
    with pytest.raises(BadArchive, match="was promised"):
        box.raw(data, digest=f"sha256:{'0' * 64}")
    with pytest.raises(BadArchive, match="is in the archive twice"):
        box.of(entry("a", b"a" * 1000), entry("a", b"a" * 1000))
    assert [p.name for p in box.releases.iterdir()] == ["b0"]
    assert (old / "a").read_bytes() == b"a" * 1000 and (old / "a").stat().st_nlink == 1
