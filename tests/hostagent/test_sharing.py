"""Releases one after the other, as a pipeline packs them: what is the same is shared, and nothing else ever is."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from hostagent import contents, seals
from hostagent.contents import Contents
from hostagent.layout import index_of
from hostagent.stream import Framed
from hostagent.unpack import Earlier, Limits, unpack
from pipeline import archive

FILES, BYTES = 40, 150_000


class Bench:
    """A tree that changes, and the releases that were made of it."""

    def __init__(self, directory: Path) -> None:
        self.tree = directory / "tree"
        self.releases = directory / "releases"
        self._archives = directory / "archives"
        self._archives.mkdir()
        (self.tree / "deep").mkdir(parents=True)
        self.chance = random.Random(3)
        for n in range(FILES):
            (self.tree / f"deep/f{n}").write_bytes(self.chance.randbytes(BYTES))
        (self.tree / "now").symlink_to("deep/f1")
        (self.tree / "run").write_text("#!/bin/sh\n")
        (self.tree / "run").chmod(0o755)
        (self.tree / "none").write_bytes(b"")

    def make(self, name: str, earlier: Earlier) -> tuple[Path, Contents]:
        """A release of the tree as it is, which it then is; and its contents, as they come back from the disk."""
        packed_at = self._archives / name
        packed = archive.pack(archive.survey(self.tree), packed_at)
        index_of(packed_at).write_bytes(packed.index)
        release = self.releases / name
        found = unpack(packed_at, release, digest=packed.digest, limits=Limits(), earlier=earlier)
        assert found is not None
        again = contents.decode(found.encode())
        assert again == found
        assert looks(release) == looks(self.tree)
        return release, again


def looks(tree: Path) -> dict[str, object]:
    """Names, kinds, content, and who may execute it."""
    return {
        str(p.relative_to(tree)): (p.readlink() if p.is_symlink() else p.is_dir() or (p.read_bytes(), mode(p) & 0o100))
        for p in tree.rglob("*")
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def shared(release: Path, other: Path) -> set[str]:
    return {
        str(p.relative_to(release))
        for p in release.rglob("*")
        if p.is_file() and not p.is_symlink() and (q := other / p.relative_to(release)).exists() and p.samefile(q)
    }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which frames were unpacked."""
    seen: list[int] = []
    really = Framed._unpacked

    def counting(self: Framed, n: int) -> tuple[int, int, bytes]:
        seen.append(n)
        return really(self, n)

    monkeypatch.setattr(Framed, "_unpacked", counting)
    return seen


def test_what_did_not_change_is_neither_unpacked_nor_written(bench: Bench, unpacked: list[int]) -> None:
    old, held = bench.make("b1", Earlier())
    everything = len(unpacked)
    unpacked.clear()
    (bench.tree / "deep/f7").write_bytes(b"another" * 10_000)
    (bench.tree / "deep/f9").unlink()
    (bench.tree / "deep/new").write_bytes(b"new")
    (bench.tree / "run").chmod(0o644)
    new, held = bench.make("b2", Earlier(old, held))
    assert shared(new, old) == {f"deep/f{n}" for n in range(FILES) if n not in (7, 9)}
    assert mode(old / "run") == 0o755
    assert len(unpacked) < everything / 4
    unpacked.clear()
    third, _ = bench.make("b3", Earlier(new, held))
    assert len(shared(third, new)) > FILES - 1 and len(unpacked) < 4


def test_whatever_changes_the_release_is_the_tree(bench: Bench) -> None:
    release, held = bench.make("b0", Earlier())
    before: dict[Path, dict[str, object]] = {}
    for n in range(12):
        for _ in range(bench.chance.randint(1, 6)):
            change(bench)
        release, held = bench.make(f"b{n + 1}", Earlier(release, held))
        assert all(looks(old) == was for old, was in before.items()), "no earlier one is touched"
        before[release] = looks(release)


def change(bench: Bench) -> None:
    """Something that a build may do to a tree."""
    files = sorted(p for p in (bench.tree / "deep").iterdir() if p.is_file() and not p.is_symlink())
    file, chance = bench.chance.choice(files), bench.chance
    at = chance.randrange(max(1, file.stat().st_size))
    data = file.read_bytes()
    match chance.randrange(7):
        case 0:
            file.write_bytes(data[:at] + b"!" + data[at:])
        case 1:
            file.write_bytes(data[:at] + b"!" + data[at + 1 :])
        case 2:
            file.unlink()
        case 3:
            file.rename(file.with_name(f"g{chance.randrange(10**6)}"))
        case 4:
            shutil.copy(file, file.with_name(f"a{chance.randrange(10**6)}"))
        case 5:
            file.chmod(0o755 if not mode(file) & 0o100 else 0o644)
        case 6:
            file.with_name(f"l{chance.randrange(10**6)}").symlink_to(file.name)


def test_a_release_that_somebody_changed_is_not_passed_on(bench: Bench) -> None:
    old, held = bench.make("b1", Earlier())
    for n, damage in enumerate((written, written_and_hidden, replaced, touched, opened, removed, linked_away)):
        damage(old / f"deep/f{n}")
    new, _ = bench.make("b2", Earlier(old, held))
    assert shared(new, old) == {"run", "deep/f3", *(f"deep/f{n}" for n in range(7, FILES))}


def written(file: Path) -> None:
    with file.open("r+b") as f:
        f.write(b"tampered")


def written_and_hidden(file: Path) -> None:
    """Its size and its times are as they were, but for the one that nobody can set."""
    before = file.stat()
    written(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(b"tampered" + data[8:])


def touched(file: Path) -> None:
    """Its seal is broken, but read it is what it was."""
    os.utime(file, ns=(1, 1))


def opened(file: Path) -> None:
    file.chmod(0o666)


def removed(file: Path) -> None:
    file.unlink()


def linked_away(file: Path) -> None:
    elsewhere = file.parents[2] / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def test_what_is_said_of_an_earlier_release_counts_only_as_it_was_written(bench: Bench) -> None:
    old, held = bench.make("b1", Earlier())
    raw = held.encode()
    for wrong in (None, b"", b"x", raw[:-1], raw[:60] + bytes([raw[60] ^ 1]) + raw[61:]):
        assert contents.decode(wrong) is None
    assert len(shared(bench.make("b2", Earlier(old, None))[0], old)) >= FILES, "it is then compared byte by byte"


def test_an_index_that_lies_is_of_no_use(bench: Bench) -> None:
    """It says that a changed file's frames are those of the earlier release."""
    old, held = bench.make("b1", Earlier())
    index = index_of(bench._archives / "b1").read_bytes()
    (bench.tree / "deep/f7").write_bytes(bench.chance.randbytes(BYTES))
    packed = archive.pack(archive.survey(bench.tree), bench._archives / "b2")
    forged = bytearray(packed.index)
    theirs = {index[i : i + 20] for i in range(17, len(index), 20)}
    ours = [i for i in range(17, len(forged), 20) if bytes(forged[i : i + 20]) not in theirs]
    for i in ours:
        forged[i : i + 16] = index[17 : 17 + 16]
    index_of(bench._archives / "b2").write_bytes(forged)
    release = bench.releases / "b2"
    earlier = Earlier(old, held)
    assert unpack(bench._archives / "b2", release, digest=packed.digest, limits=Limits(), earlier=earlier) is None, (
        "nothing is known of its frames"
    )
    assert looks(release) == looks(bench.tree)


def test_seals_break_when_a_release_with_links_goes_and_are_made_anew(bench: Bench) -> None:
    old, held = bench.make("b1", Earlier())
    (bench.tree / "deep/f7").write_bytes(b"another" * 10_000)
    new, held = bench.make("b2", Earlier(old, held))
    written(new / "deep/f8")
    whole = seals.unbroken(new, held)
    assert set(whole) == {m.name for m in held.members if m.kind == "file"} - {"deep/f8"}
    shutil.rmtree(old)
    assert {"deep/f7", "none"} <= set(seals.unbroken(new, held)) < set(whole)
    assert set(seals.unbroken(new, seals.anew(new, held, whole))) == set(whole)
