"""Which builds this host lets run: those that a pinned key vouches for. Asked before anything of a build is executed.

Signatures are kept beside the releases, so that a host starts what it has while the object store is away. The highest
``revoked_below`` that a service ever had is kept too: whoever can write to ZooKeeper cannot take a revocation back.
A host that pins no keys asks for no signatures, and cannot honour a revocation: it then starts nothing new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from fleet.config import BadConfig
from fleet.files import read_or_none, write_atomic
from fleet.loop import Trouble
from fleet.model import Manifest, Signature, Signatures
from fleet.s3 import ObjectStore, signature_key
from fleet.signing import BadKey, NotVouched, PublicKey, vouched
from hostagent import failpoint
from hostagent.layout import Layout


class NotTrusted(Trouble):
    """Nobody whom this host believes vouches for the build. The sentence says why, and what to do."""


def pinned(texts: Sequence[str]) -> tuple[PublicKey, ...]:
    """Raises BadConfig."""
    try:
        return tuple(PublicKey(t) for t in texts)
    except BadKey as e:
        raise BadConfig(f"signing_keys: {e}") from e


class Trust:
    def __init__(
        self, keys: Sequence[PublicKey], layout: Layout, store: ObjectStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._layout = layout
        self._store = store
        #: An expiry is a date, so this is wall time: a clock that is wrong delays an install, with these words.
        self._clock = clock

    def known(self, manifest: Manifest, revoked_below: int) -> bool:
        """What is installed may be started for all that this host knows: ``require`` would ask nobody. Reads only."""
        try:
            below = max(self._highest(manifest.service), revoked_below)
            if not self._keys:
                return not below
            vouched(manifest, self._kept(manifest), self._keys, revoked_below=below, now=0.0)
        except (NotVouched, NotTrusted):
            return False
        return True

    def require(self, manifest: Manifest, revoked_below: int, *, installed: bool = False) -> None:
        """The build may run here. What is ``installed`` already may be started after its signature has expired: a host
        that comes back serves what it served. Raises NotTrusted, and Trouble where the store must be asked and is away.
        """
        below = self._floor(manifest.service, revoked_below)
        if not self._keys:
            if below:
                raise NotTrusted(
                    f"{manifest.service} has revoked_below = {below}, and this host cannot tell what that is: "
                    "pin the signers' keys in its file (signing_keys)"
                )
            return
        now = 0.0 if installed else self._clock()
        try:
            vouched(manifest, self._kept(manifest), self._keys, revoked_below=below, now=now)
        except NotVouched:
            fresh = self._stored(manifest)
            try:
                vouched(manifest, fresh.signatures, self._keys, revoked_below=below, now=now)
            except NotVouched as e:
                raise NotTrusted(str(e)) from e
            kept = self._layout.signatures(manifest.service, manifest.build)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(kept, fresh.encode())
            failpoint.at(manifest.service, manifest.build, "trust.kept")

    def _kept(self, manifest: Manifest) -> tuple[Signature, ...]:
        raw = read_or_none(self._layout.signatures(manifest.service, manifest.build))
        try:
            return Signatures.model_validate_json(raw).signatures if raw else ()
        except ValidationError:
            return ()  # the store is asked next

    def _stored(self, manifest: Manifest) -> Signatures:
        key = signature_key(manifest.service, manifest.build)
        raw = self._store.get(key)
        try:
            return Signatures.model_validate_json(raw) if raw else Signatures()
        except ValidationError as e:
            raise NotTrusted(f"{key} in the store holds no signatures: {e.errors()[0]['msg']}") from e

    def _highest(self, service: str) -> int:
        file = self._layout.revoked(service)
        raw = read_or_none(file)
        if raw is not None and not raw.strip().isdigit():
            raise NotTrusted(f"{file} should hold the lowest counter that is not revoked, and holds no number")
        return int(raw) if raw else 0

    def _floor(self, service: str, revoked_below: int) -> int:
        known = self._highest(service)
        if revoked_below > known:
            file = self._layout.revoked(service)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, f"{revoked_below}\n")
        return max(known, revoked_below)
