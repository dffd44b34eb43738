"""How templates are read, for all that is rendered: what is missing is an error, and nothing is escaped by itself.

Which escapes a template needs is its language's business: ``vcl`` and ``nginx`` bring their own as filters.
"""

from __future__ import annotations

from collections.abc import Callable

import jinja2


def environment(package: str, **filters: Callable[[str], str]) -> jinja2.Environment:
    """Of the templates that ship as data of ``package``."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        undefined=jinja2.StrictUndefined,
        # An upgrade on disk must not put a new template under an agent that still runs the old code.
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  not HTML: the filters are the language's own escapes
    )
    made.filters.update(filters)
    return made
