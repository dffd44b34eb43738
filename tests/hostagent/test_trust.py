"""Whom a host believes: with a real store, and with the store away."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config import BadConfig
from fleet.model import Manifest, Signatures
from fleet.s3 import ObjectStore, S3Trouble, signature_key
from fleet.signing import PrivateKey
from hostagent.layout import Layout
from hostagent.trust import NotTrusted, Trust, pinned

KEY, NEXT = PrivateKey.generate(), PrivateKey.generate()
BUILD = Manifest(service="web", build="b1", digest=f"sha256:{'0' * 64}", size=10, unpacked=20, files=3)
NOW = 1_000_000.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path / "run")


def sign(store: ObjectStore, *keys: PrivateKey, counter: int = 3, expires: int | None = None) -> None:
    every = tuple(k.sign(BUILD, counter=counter, expires=expires) for k in keys)
    store.put(signature_key("web", "b1"), Signatures(signatures=every).encode(), "application/json")


class Away:
    """A store that does not answer."""

    def get(self, key: str) -> bytes | None:
        raise S3Trouble(f"no answer for {key}")

    def download(self, key: str, to: Path, **_: object) -> None:
        raise S3Trouble(f"no answer for {key}")


def test_unsigned_refused_signed_let_in_and_remembered_without_the_store(store: ObjectStore, layout: Layout) -> None:
    trust = Trust([KEY.public], layout, store, lambda: NOW)
    with pytest.raises(NotTrusted, match="web b1 is not signed; sign it anew: pinrail build sign web b1"):
        trust.require(BUILD, 0)
    sign(store, KEY)
    trust.require(BUILD, 0)
    Trust([KEY.public], layout, Away(), lambda: NOW).require(BUILD, 0)


def test_a_key_that_is_no_longer_pinned_counts_no_longer(store: ObjectStore, layout: Layout) -> None:
    sign(store, KEY)
    Trust([KEY.public, NEXT.public], layout, store, lambda: NOW).require(BUILD, 0)
    rotated = Trust([NEXT.public], layout, store, lambda: NOW)
    with pytest.raises(NotTrusted, match="not among the pinned ones"):
        rotated.require(BUILD, 0, installed=True)
    sign(store, KEY, NEXT)
    rotated.require(BUILD, 0)


def test_a_revocation_is_never_forgotten(store: ObjectStore, layout: Layout) -> None:
    sign(store, KEY, counter=3)
    trust = Trust([KEY.public], layout, store, lambda: NOW)
    trust.require(BUILD, 3)
    with pytest.raises(NotTrusted, match="was revoked: its counter is 3, and all below 4 are"):
        trust.require(BUILD, 4, installed=True)
    with pytest.raises(NotTrusted, match="was revoked"):
        Trust([KEY.public], layout, store, lambda: NOW).require(BUILD, 0)
    layout.revoked("web").write_text("many")
    with pytest.raises(NotTrusted, match=r"web\.revoked should hold"):
        trust.require(BUILD, 0)


def test_what_is_installed_may_be_started_after_its_signature_expired(store: ObjectStore, layout: Layout) -> None:
    sign(store, KEY, expires=int(NOW) + 10)
    now = [NOW]
    trust = Trust([KEY.public], layout, store, lambda: now[0])
    trust.require(BUILD, 0)
    now[0] += 10
    with pytest.raises(NotTrusted, match="expired"):
        trust.require(BUILD, 0)
    trust.require(BUILD, 0, installed=True)


def test_damage_on_disk_is_mended_from_the_store_and_in_the_store_is_said(store: ObjectStore, layout: Layout) -> None:
    sign(store, KEY)
    trust = Trust([KEY.public], layout, store, lambda: NOW)
    trust.require(BUILD, 0)
    layout.signatures("web", "b1").write_text("nonsense")
    trust.require(BUILD, 0)
    layout.signatures("web", "b1").unlink()
    store.put(signature_key("web", "b1"), b"nonsense", "text/plain")
    with pytest.raises(NotTrusted, match=r"manifest\.sig in the store holds no signatures"):
        trust.require(BUILD, 0)


def test_without_keys_anything_runs_until_something_is_revoked(layout: Layout) -> None:
    trust = Trust([], layout, Away(), lambda: NOW)
    trust.require(BUILD, 0)
    with pytest.raises(NotTrusted, match=r"pin the signers' keys in its file \(signing_keys\)"):
        trust.require(BUILD, 1)


def test_what_is_known_is_what_would_be_let_in_without_asking(store: ObjectStore, layout: Layout) -> None:
    trust = Trust([KEY.public], layout, store, lambda: NOW)
    assert not trust.known(BUILD, 0), "unsigned"
    sign(store, KEY, counter=3, expires=int(NOW) + 10)
    assert not trust.known(BUILD, 0), "the store was not asked"
    trust.require(BUILD, 0)
    away = Trust([KEY.public], layout, Away(), lambda: NOW + 99)
    assert away.known(BUILD, 3), "though it has expired: it is installed"
    assert not away.known(BUILD, 4) and away.known(BUILD, 3), "looking revokes nothing"
    trust.require(BUILD, 3)
    layout.revoked("web").write_text("many")
    assert not away.known(BUILD, 0)
    layout.revoked("web").unlink()
    assert not Trust([NEXT.public], layout, Away()).known(BUILD, 0)
    assert Trust([], layout, Away()).known(BUILD, 0) and not Trust([], layout, Away()).known(BUILD, 1)


def test_a_key_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(BadConfig, match=r"signing_keys: 'abc' is not a public key such as ed25519:"):
        pinned(["abc"])
