"""A part's own TOML file. Unknown keys, wrong types and unreadable files are the operator's: one sentence each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

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
#: One of the sorts of a union, as pydantic has it in a fault's place.
_SORT = re.compile(r"^(constrained-|literal\[|function-(after|before|wrap|plain))")


#: What is to be changed, by pydantic's name for the fault; where it is not here, pydantic's own words are plain enough.
_PLAIN = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "model_attributes_type": "must be an object, like {{...}}",
    "model_type": "must be an object, like {{...}}",
    "dict_type": "must be an object, like {{...}}",
    "list_type": "must be a list, like [...]",
    "tuple_type": "must be a list, like [...]",
    "string_type": "must be text in quotes",
    "string_unicode": "must be text, without halves of characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have at least {min_length} in it",
    "string_too_long": "may have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
}


def faults(errors: Iterable[Any], top: str) -> list[tuple[str, str]]:
    """Each place and what is to be changed there; ``top`` is what the whole is called.

    What may be one thing or another fails as each of them: that is one fault, in one sentence.
    """
    found: dict[str, list[str]] = {}
    for e in errors:
        # A wrong key says so itself; and what pydantic calls the sorts that a value may be of is no place.
        where = [str(p) for p in e["loc"] if p != "[key]" and not _SORT.search(str(p))]
        plain = _PLAIN.get(e["type"])
        what = plain.format(**e.get("ctx", {})) if plain else e["msg"].removeprefix("Value error, ")
        words = found.setdefault(".".join(where) or top, [])
        if what not in words:
            words.append(what)
    return [(where, ", or ".join(words)) for where, words in found.items()]


def sentence(error: ValidationError) -> str:
    """All faults in one line: ``key: what is wrong; key: ...``."""
    return "; ".join(f"{where}: {what}" for where, what in faults(error.errors(), "(top)"))


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
