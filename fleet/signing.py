"""Signatures of builds: Ed25519 over all that a manifest promises, a counter and an expiry. It has no clock.

A signature says that the holder of a key vouches for one build of one service. ``counter`` grows with every build of a
service that is signed, so that "nothing below 17 any more" can be said once (``ServiceConfig.revoked_below``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleet.model import Manifest, Signature

_PREFIX = "ed25519:"
#: A signature for this can be taken for nothing else.
_DOMAIN = b"pinrail build 1\n"


class BadKey(ValueError):
    """Not a key that is meant here; says what one looks like."""


class NotVouched(Exception):
    """No signature that counts. The sentence says why, and what to do."""


class PublicKey:
    """``ed25519:<base64 of 32 bytes>``, as it is pinned. Raises BadKey."""

    def __init__(self, text: str) -> None:
        try:
            raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
            self._key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError as e:
            raise BadKey(f"{text!r} is not a public key such as {_PREFIX}<44 characters of base64>") from e
        if not text.startswith(_PREFIX):
            raise BadKey(f"{text!r} does not begin with {_PREFIX!r}")
        self.text = text
        self.id = hashlib.sha256(raw).hexdigest()[:16]

    def verifies(self, signature: Signature, manifest: Manifest) -> bool:
        try:
            self._key.verify(base64.b64decode(signature.signature), statement(manifest, signature))
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """Signs. Never shown: its ``repr`` is its public half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(_PREFIX + base64.b64encode(key.public_key().public_bytes_raw()).decode())

    @staticmethod
    def generate() -> PrivateKey:
        return PrivateKey(Ed25519PrivateKey.generate())

    @staticmethod
    def of_pem(pem: bytes) -> PrivateKey:
        """Raises BadKey."""
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError) as e:
            raise BadKey("not a private key in PEM without a passphrase") from e
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey("a private key, but not an Ed25519 one")
        return PrivateKey(key)

    def pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, manifest: Manifest, *, counter: int, expires: int | None) -> Signature:
        unsigned = Signature(key=self.public.id, counter=counter, expires=expires, signature="")
        made = base64.b64encode(self._key.sign(statement(manifest, unsigned))).decode()
        return unsigned.model_copy(update={"signature": made})

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.id})"


def statement(manifest: Manifest, signature: Signature) -> bytes:
    """What is signed: everything that a host acts upon. The rest of a manifest is for people."""
    promised = manifest.model_dump(include={"service", "build", "digest", "size", "unpacked", "files"})
    promised |= {"counter": signature.counter, "expires": signature.expires}
    return _DOMAIN + json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()


def vouched(
    manifest: Manifest, signatures: Iterable[Signature], keys: Iterable[PublicKey], *, revoked_below: int, now: float
) -> Signature:
    """The signature that lets a host have the build. ``now`` is Unix time, for expiries; raises NotVouched."""
    pinned = {k.id: k for k in keys}
    what = f"{manifest.service} {manifest.build}"
    why, remedy = "is not signed", f"; sign it anew: pinrail build sign {what} --key FILE"
    for s in signatures:
        if s.key not in pinned:
            why = f"is signed by the key {s.key}, which is not among the pinned ones ({', '.join(pinned) or 'none'})"
        elif not pinned[s.key].verifies(s, manifest):
            why = f"has a signature of the key {s.key} that is for something else: it was tampered with"
        elif s.counter < revoked_below:
            why = f"was revoked: its counter is {s.counter}, and all below {revoked_below} are"
            remedy = "; publish and release a build after it"
        elif s.expires is not None and s.expires <= now:
            when = datetime.fromtimestamp(s.expires, UTC).isoformat(timespec="minutes")
            why = f"has a signature that expired {when}"
        else:
            return s
    raise NotVouched(f"{what} {why}{remedy}")
