"""What a signature covers, and which signature counts."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from fleet.model import Manifest, Signature
from fleet.signing import BadKey, NotVouched, PrivateKey, PublicKey, vouched

OLD, NEW, STRANGER = (PrivateKey.generate() for _ in range(3))
BUILD = Manifest(service="web", build="b1", digest=f"sha256:{'0' * 64}", size=10, unpacked=20, files=3)
NOW = 1_000_000.0


def look(*signatures: Signature, keys: tuple[PrivateKey, ...] = (OLD,), below: int = 0, m: Manifest = BUILD) -> int:
    return vouched(m, signatures, [k.public for k in keys], revoked_below=below, now=NOW).counter


def test_a_pinned_key_vouches_and_nobody_else_does() -> None:
    good, strange = OLD.sign(BUILD, counter=4, expires=None), STRANGER.sign(BUILD, counter=9, expires=None)
    assert look(good) == 4
    assert look(strange, good) == 4, "another's signature takes nothing away"
    with pytest.raises(NotVouched, match=rf"web b1 is signed by the key {STRANGER.public.id}, which is not among"):
        look(strange)
    with pytest.raises(NotVouched, match="web b1 is not signed; sign it anew: pinrail build sign web b1"):
        look()


def test_one_key_follows_another() -> None:
    both = OLD.sign(BUILD, counter=4, expires=None), NEW.sign(BUILD, counter=7, expires=None)
    assert look(*both, keys=(OLD,)) == 4
    assert look(*both, keys=(OLD, NEW)) == 4
    assert look(*both, keys=(NEW,)) == 7


@pytest.mark.parametrize(
    "changed",
    [
        {"service": "api"},
        {"build": "b2"},
        {"digest": f"sha256:{'1' * 64}"},
        {"size": 11},
        {"unpacked": 21},
        {"files": 4},
    ],
)
def test_a_signature_is_for_one_build_only(changed: dict[str, object]) -> None:
    good = OLD.sign(BUILD, counter=4, expires=None)
    with pytest.raises(NotVouched, match="is for something else: it was tampered with"):
        look(good, m=BUILD.model_copy(update=changed))


def test_what_is_for_people_may_change() -> None:
    assert look(OLD.sign(BUILD, counter=4, expires=None), m=BUILD.model_copy(update={"builder": "x", "commit": "y"}))


@pytest.mark.parametrize("changed", [{"counter": 99}, {"expires": None}, {"expires": int(NOW) + 99}])
def test_neither_counter_nor_expiry_can_be_moved(changed: dict[str, object]) -> None:
    old = OLD.sign(BUILD, counter=4, expires=int(NOW) - 1)
    with pytest.raises(NotVouched, match="tampered with"):
        look(old.model_copy(update=changed))


def test_revoked_and_expired_ones_do_not_count() -> None:
    good = OLD.sign(BUILD, counter=4, expires=None)
    assert look(good, below=4) == 4
    with pytest.raises(NotVouched, match="was revoked: its counter is 4, and all below 5 are"):
        look(good, below=5)
    with pytest.raises(NotVouched, match=r"expired 1970-01-12T13:46"):
        look(OLD.sign(BUILD, counter=4, expires=int(NOW)))
    assert look(OLD.sign(BUILD, counter=4, expires=int(NOW) + 1)) == 4


@given(st.binary(max_size=80))
def test_a_signature_of_any_other_bytes_is_none(raw: bytes) -> None:
    forged = OLD.sign(BUILD, counter=4, expires=None).model_copy(update={"signature": base64.b64encode(raw).decode()})
    with pytest.raises(NotVouched, match="tampered with"):
        look(forged)


def test_a_signature_that_is_no_base64_is_none() -> None:
    with pytest.raises(NotVouched, match="tampered with"):
        look(OLD.sign(BUILD, counter=4, expires=None).model_copy(update={"signature": "ü"}))


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_is_said_not_to_be(text: str) -> None:
    with pytest.raises(BadKey, match="ed25519:"):
        PublicKey(text)


def test_keys_travel_as_text() -> None:
    assert PublicKey(OLD.public.text).id == OLD.public.id
    again = PrivateKey.of_pem(OLD.pem())
    assert again.public.text == OLD.public.text
    assert str(again) == f"PrivateKey({OLD.public.id})", "no secret in a log"
    with pytest.raises(BadKey, match="does not begin with"):
        PublicKey(OLD.public.text.removeprefix("ed25519:"))
    with pytest.raises(BadKey, match="without a passphrase"):
        PrivateKey.of_pem(b"nonsense")
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(BadKey, match="not an Ed25519 one"):
        PrivateKey.of_pem(other)
