"""A table on stdout, of what people, builds and hosts have written: nothing in it is markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def show(table: Table) -> None:
    """Cells as they are: ``[its log: ...]`` is no style, and ``:fire:`` no picture."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)
