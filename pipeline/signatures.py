"""Signatures of builds in the object store, and the signer's key on disk.

A signature is written before the manifest that it is for: hosts never see a build that is to be signed without one.
Another key's signature is added beside it, so that a fleet can go from one key to the next without publishing anew.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from fleet.config import BadConfig, sentence
from fleet.files import write_atomic
from fleet.model import Manifest, Signature, Signatures
from fleet.s3 import ObjectStore, build_prefix, signature_key
from fleet.signing import BadKey, PrivateKey

_READERS = 8


class BadSignatures(Exception):
    """What lies in the store as a build's signatures cannot be read."""


# --- the key -----------------------------------------------------------------------------------------------------


def new_key(path: Path) -> PrivateKey:
    """Make a key in a file that nobody but its owner may read. Raises BadConfig where there is one already."""
    key = PrivateKey.generate()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write_atomic(path, key.pem(), 0o600)
    except FileExistsError as e:
        raise BadConfig(f"{path} is there already: a key is never overwritten; choose another file") from e
    except OSError as e:
        raise BadConfig(f"cannot write {path}: {e.strerror}") from e
    return key


def read_key(path: Path) -> PrivateKey:
    """Raises BadConfig."""
    try:
        if path.stat().st_mode & 0o077:
            raise BadConfig(f"{path} is a signing key and others may read it: chmod 600 {path}")
        return PrivateKey.of_pem(path.read_bytes())
    except OSError as e:
        raise BadConfig(f"cannot read the signing key {path}: {e.strerror}") from e
    except BadKey as e:
        raise BadConfig(f"{path} is {e}; `pinrail build key {path.with_suffix('.new')}` makes one") from e


# --- in the store ------------------------------------------------------------------------------------------------


def read(store: ObjectStore, service: str, build: str) -> tuple[Signature, ...]:
    """Raises BadSignatures, Trouble."""
    key = signature_key(service, build)
    data = store.get(key)
    if data is None:
        return ()
    try:
        return Signatures.model_validate_json(data).signatures
    except ValidationError as e:
        raise BadSignatures(f"{key} in the store holds no signatures: {sentence(e)}") from e


def sign(store: ObjectStore, manifest: Manifest, key: PrivateKey, *, expires: int | None = None) -> Signature:
    """Vouch for the build, in place of what this key said of it before; other keys' words stay.

    The counter is kept where the key had signed the build before, else it is the service's next. Two publishers at
    once may draw the same one: they can then only be revoked together. Raises BadSignatures, Trouble.
    """
    there = read(store, manifest.service, manifest.build)
    own = next((s for s in there if s.key == key.public.id), None)
    counter = own.counter if own else _highest(store, manifest.service) + 1
    made = key.sign(manifest, counter=counter, expires=expires)
    every = Signatures(signatures=(*(s for s in there if s.key != made.key), made))
    store.put(signature_key(manifest.service, manifest.build), every.encode(), "application/json")
    return made


def _highest(store: ObjectStore, service: str) -> int:
    return max(counters(store, service).values(), default=0)


def counters(store: ObjectStore, service: str) -> dict[str, int]:
    """Every signed build's counter: the highest, where several keys vouch for it. Raises BadSignatures, Trouble."""
    prefix, end = build_prefix(service), "/manifest.sig"
    names = [k.removeprefix(prefix).removesuffix(end) for k in store.keys(prefix) if k.endswith(end)]
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(names, pool.map(lambda build: read(store, service, build), names), strict=True)
        return {build: max(s.counter for s in signatures) for build, signatures in found if signatures}
