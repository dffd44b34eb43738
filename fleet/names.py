"""What may be called what: the alphabets of every name that ends up in a path, a URL, a header or a VCL symbol.

A name is checked once, where it enters (a model field, a command-line argument); after that it can be trusted. The
error sentence says what the name must look like, so that it can be shown to whoever typed it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_BUILD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]|[a-z]")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


class BadName(ValueError):
    """A name outside its alphabet; the message says which and what is allowed."""


def _check(kind: str, pattern: re.Pattern[str], value: str, allowed: str) -> str:
    if not pattern.fullmatch(value):
        shown = value if len(value) <= 70 else value[:67] + "..."
        raise BadName(f"{shown!r} is not a {kind} name: {allowed}")
    return value


def build_name(value: str) -> str:
    """A build's name, by convention a short git commit; becomes a path component, an S3 key and a header value."""
    return _check("build", _BUILD, value, "a letter or digit, then up to 62 of letters, digits, '.', '_' and '-'")


def service_name(value: str) -> str:
    """A service's name; becomes part of VCL symbols, supervisor groups and znode paths."""
    return _check("service", _SERVICE, value, "1-32 of a-z, 0-9 and '-', a letter first, no '-' last")


def node_name(value: str) -> str:
    """The name of an edge, a host or a barrier replica; becomes a znode name."""
    return _check("node", _NODE, value, "a letter or digit, then up to 62 of letters, digits, '.', '_' and '-'")


def header_name(value: str) -> str:
    """An HTTP header, query parameter or cookie name (RFC 9110 token)."""
    return _check("header, parameter or cookie", _TOKEN, value, "1-64 of the characters RFC 9110 allows in a token")


@dataclass(frozen=True)
class Form:
    """For ``Annotated``: text that ``pattern`` matches; any other is refused with what it must be. In schemas, too."""

    #: From ``^`` to ``$``, as JSON schemas have it.
    pattern: str
    must: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.pattern}

    def _checked(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise ValueError(self.must)
        return value


def folded(path: str) -> str:
    """The same for two names of files that some file system takes for one: they differ in case, or in how letters are
    put together."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def controls(text: str) -> bool:
    """It has a newline or another control character: whatever lists it, line by line, can be lied to."""
    return not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text)


Build = Annotated[str, AfterValidator(build_name)]
Service = Annotated[str, AfterValidator(service_name)]
NodeName = Annotated[str, AfterValidator(node_name)]
HeaderName = Annotated[str, AfterValidator(header_name)]
