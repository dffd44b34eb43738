"""The VCL templates, shipped as package data, and the two escapes they need. Loops and escaping only, no computing.

``service.vcl.j2`` is one service behind its label ``svc-<service>``; ``root.vcl.j2`` matches host and path and hands
over. Who fills them in, and with what, is ``edge.render``.
"""

from __future__ import annotations

import re

import jinja2


class Unprintable(ValueError):
    """A value that no VCL string can hold."""


def quoted(value: str) -> str:
    """A VCL string literal. VCL knows no escapes in ``"..."``, so what would end the string is refused."""
    if not value.isprintable() or '"' in value or not value.isascii():
        raise Unprintable(f"{value!r} cannot be written as a VCL string")
    return f'"{value}"'


def escaped(value: str) -> str:
    """``value`` as a literal part of a regular expression inside a VCL string."""
    return quoted(re.sub(r"([^A-Za-z0-9_/-])", r"\\\1", value))[1:-1]


environment = jinja2.Environment(
    loader=jinja2.PackageLoader("vcl", ""),
    undefined=jinja2.StrictUndefined,
    # An upgrade on disk must not put a new template under an agent that still runs the old code.
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  not HTML: the filters below are VCL's own escapes
)
environment.filters["q"] = quoted
environment.filters["re"] = escaped
