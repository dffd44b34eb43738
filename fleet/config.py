"""A part's own TOML file. Unknown keys, wrong types and unreadable files are the operator's: one sentence each."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class BadConfig(Exception):
    """The operator's: says which file, which key, and what to change."""


class FileModel(BaseModel):
    """Base of everything that is read from a file a person wrote: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class S3Config(FileModel):
    """Where builds are kept. ``credentials`` is a file in the AWS ini format; without it boto3's own search applies."""

    endpoint: str | None = None
    region: str = "us-east-1"
    bucket: str = "pinrail"
    credentials: Path | None = None
    #: A request is given up when nothing came for so long, or next to nothing.
    stall_seconds: float = Field(default=20.0, gt=0)


M = TypeVar("M", bound=BaseModel)


def sentence(error: ValidationError) -> str:
    """All faults in one line: ``key: what is wrong; key: ...``."""
    parts = []
    for e in error.errors():
        where = ".".join(str(p) for p in e["loc"] if p != "[key]") or "(top)"  # a key that is wrong says so itself
        what = "is not a known key" if e["type"] == "extra_forbidden" else e["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {what}")
    return "; ".join(parts)


def load(path: Path, model: type[M]) -> M:
    """Read and check ``path``. Raises BadConfig with a sentence that names the file and the key."""
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as e:
        raise BadConfig(f"cannot read {path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadConfig(f"{path} is not TOML: {e}") from e
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        raise BadConfig(f"{path}: {sentence(e)}") from e


def load_secret(path: Path, model: type[M]) -> M:
    """``load``, of a file that nobody but its owner may read. Raises BadConfig where others may, too."""
    try:
        mode = path.stat().st_mode
    except OSError as e:
        raise BadConfig(f"cannot read {path}: {e.strerror}") from e
    if mode & 0o077:
        raise BadConfig(f"{path} holds a secret and others may read it: chmod 600 {path}")
    return load(path, model)
