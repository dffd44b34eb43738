"""The VCL templates, shipped as package data, and the escapes they need. Loops and escaping only, no computing.

``service.vcl.j2`` is one service behind its label ``svc-<service>``; ``root.vcl.j2`` matches host and path and hands
over. Who fills them in, and with what, is ``edge.render``.
"""

from __future__ import annotations

import re

from fleet import templates


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


def header(name: str) -> str:
    """A header's name after ``req.http.``; what VCL does not take for a name by itself is quoted."""
    return name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) else quoted(name)


environment = templates.environment("vcl", q=quoted, re=escaped, h=header)
