"""Writing TOML, which Python only reads: enough for the parts' own config files. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def _quoted(text: str) -> str:
    """JSON's escapes are TOML's, but for surrogate pairs (so none are made) and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(value)
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no form in TOML here")


def dumps(table: dict[str, Any], prefix: str = "") -> str:
    """Plain values first, then tables and arrays of tables, as TOML wants them."""
    lines, below = [], []
    for key, value in table.items():
        name = key if _BARE.fullmatch(key) else _quoted(key)
        if isinstance(value, dict):
            below.append(f"\n[{prefix}{name}]\n" + dumps(value, f"{prefix}{name}."))
        elif isinstance(value, list | tuple) and value and all(isinstance(v, dict) for v in value):
            below += [f"\n[[{prefix}{name}]]\n" + dumps(v, f"{prefix}{name}.") for v in value]
        else:
            lines.append(f"{name} = {_value(value)}\n")
    return "".join(lines + below)


def of_model(model: BaseModel) -> str:
    """What was set on the model; defaults and None are left out, so that the file says only what is particular."""
    return dumps(model.model_dump(mode="json", exclude_none=True, exclude_unset=True))
