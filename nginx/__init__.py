"""The nginx templates, shipped as package data, and the escapes they need. Loops and escaping only, no computing.

``slot.conf.j2`` is one slot of a host (``hostagent.nginx`` fills it in); ``edge.conf.j2`` is an edge without Varnish,
``edge-service.conf.j2`` one service in it, ``edge.js`` its check of answers (``edge.nginx.render`` fills them in).
"""

from __future__ import annotations

import importlib.resources
import re

from fleet import templates


class Unprintable(ValueError):
    """A value that nginx's configuration cannot hold."""


def quoted(value: str) -> str:
    """A string literal. What would end it, or begin an escape, is refused; ``$`` would begin a variable, so it comes
    from one (``$pr_dollar``)."""
    if not value.isprintable() or not value.isascii() or '"' in value or "\\" in value:
        raise Unprintable(f"{value!r} cannot be written in nginx's configuration")
    return '"' + value.replace("$", "${pr_dollar}") + '"'


def escaped(value: str) -> str:
    """``value`` as a literal part of a regular expression inside a quoted string (where no variable begins)."""
    quoted(value)
    return re.sub(r"([^A-Za-z0-9_/-])", r"\\\1", value)


environment = templates.environment("nginx", q=quoted, re=escaped)


def script() -> str:
    """The check of answers that an edge's nginx loads."""
    return importlib.resources.files("nginx").joinpath("edge.js").read_text()
