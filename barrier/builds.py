"""Which builds there are, as the rollouts' gate asks: the manifests in the object store."""

from __future__ import annotations

from typing import Protocol

from pydantic import ValidationError

from fleet.config import sentence
from fleet.model import Manifest
from fleet.s3 import ObjectStore, S3Trouble, build_prefix, manifest_key


class Builds(Protocol):
    """What the API needs to know about builds."""

    def manifest(self, service: str, build: str) -> Manifest | None: ...

    def names(self, service: str) -> list[str]: ...


class StoredBuilds:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def manifest(self, service: str, build: str) -> Manifest | None:
        """None where there is no such build. Raises S3Trouble where nothing can be known."""
        key = manifest_key(service, build)
        data = self._store.get(key)
        if data is None:
            return None
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as e:
            raise S3Trouble(f"{key} in the object store cannot be read: {sentence(e)}") from e

    def names(self, service: str) -> list[str]:
        prefix = build_prefix(service)
        end = "/manifest.json"
        return sorted(k.removeprefix(prefix).removesuffix(end) for k in self._store.keys(prefix) if k.endswith(end))
