"""Signing what is published, in a real S3; the key on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import BadConfig
from fleet.model import Manifest
from fleet.s3 import ObjectStore, archive_key, chunks_key, manifest_key, signature_key
from fleet.signing import NotVouched, PrivateKey, vouched
from pipeline import publish, signatures
from pipeline.signatures import BadSignatures

B1 = ("web", "b1")
KEY, NEXT = PrivateKey.generate(), PrivateKey.generate()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("content")
    return tree


def counter(store: ObjectStore, manifest: Manifest, key: PrivateKey = KEY, now: float = 0.0) -> int:
    signed = signatures.read(store, manifest.service, manifest.build)
    return vouched(manifest, signed, [key.public], revoked_below=0, now=now).counter


def test_each_build_of_a_service_has_the_next_counter(store: ObjectStore, tree: Path) -> None:
    made = [
        publish.publish(store, tree, s, b, key=KEY).manifest for s, b in (("web", "b1"), ("web", "b2"), ("x", "b1"))
    ]
    assert [counter(store, m) for m in made] == [1, 2, 1]


def test_the_signature_is_there_before_the_build_is(
    store: ObjectStore, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put, put_new = store.put, store.put_new

    def spy(name: str, do: object):  # type: ignore[no-untyped-def]
        def call(key: str, *args: object) -> None:
            order.append(key)
            do(key, *args)  # type: ignore[operator]

        return call

    monkeypatch.setattr(store, "put", spy("put", put))
    monkeypatch.setattr(store, "put_new", spy("put_new", put_new))
    publish.publish(store, tree, "web", "b1", key=KEY)
    assert order == [f(*B1) for f in (archive_key, chunks_key, signature_key, manifest_key)]


def test_without_a_key_nothing_is_signed_and_publishing_again_with_one_signs(store: ObjectStore, tree: Path) -> None:
    m = publish.publish(store, tree, "web", "b1").manifest
    assert signatures.read(store, "web", "b1") == ()
    again = publish.publish(store, tree, "web", "b1", key=KEY)
    assert (again.new, counter(store, m)) == (False, 1)
    publish.publish(store, tree, "web", "b1", key=KEY)
    assert len(signatures.read(store, "web", "b1")) == 1


def test_another_key_signs_beside_the_first(store: ObjectStore, tree: Path) -> None:
    m = publish.publish(store, tree, "web", "b1", key=KEY).manifest
    publish.publish(store, tree, "web", "b2", key=KEY)
    assert signatures.sign(store, m, NEXT).counter == 3
    assert (counter(store, m), counter(store, m, NEXT)) == (1, 3)


def test_signed_again_it_keeps_its_counter_and_gets_another_expiry(store: ObjectStore, tree: Path) -> None:
    m = publish.publish(store, tree, "web", "b1", key=KEY, expires=100).manifest
    publish.publish(store, tree, "web", "b2", key=KEY)
    with pytest.raises(NotVouched, match="expired"):
        counter(store, m, now=100.0)
    signatures.sign(store, m, KEY, expires=200)
    assert counter(store, m, now=100.0) == 1


def test_what_is_no_signature_is_said_and_not_written_over(store: ObjectStore, tree: Path) -> None:
    m = publish.publish(store, tree, "web", "b1").manifest
    store.put(signature_key("web", "b1"), b"[]", "text/plain")
    with pytest.raises(BadSignatures, match=r"builds/web/b1/manifest\.sig in the store holds no signatures"):
        signatures.sign(store, m, KEY)
    assert store.get(signature_key("web", "b1")) == b"[]"


def test_the_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    made = signatures.new_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert signatures.read_key(file).public.text == made.public.text
    with pytest.raises(BadConfig, match="is there already"):
        signatures.new_key(file)
    file.chmod(0o640)
    with pytest.raises(BadConfig, match=r"others may read it: chmod 600 .*key.pem"):
        signatures.read_key(file)
    (tmp_path / "no").write_text("nonsense")
    (tmp_path / "no").chmod(0o600)
    for name, words in (("no", "not a private key"), ("absent", "No such file")):
        with pytest.raises(BadConfig, match=words):
            signatures.read_key(tmp_path / name)
