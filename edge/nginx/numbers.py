"""Regular expressions that compare decimal numbers, for maps, which cannot compare. Pure.

Each is meant for the middle of an anchored expression; leading zeros do not count.
"""

from __future__ import annotations


def above(limit: int) -> str:
    """Matches the digits of any number greater than ``limit``, which is not negative."""
    digits = str(limit)
    ways = [f"[1-9][0-9]{{{len(digits)},}}"]
    for at, digit in enumerate(digits):
        if digit != "9":
            ways.append(_way(digits[:at], int(digit) + 1, 9, len(digits) - at - 1))
    return f"0*(?:{'|'.join(ways)})"


def below(limit: int) -> str:
    """Matches the digits of any number less than ``limit``; nothing where there is none."""
    digits = str(limit)
    ways = [] if len(digits) == 1 else [f"[0-9]{{1,{len(digits) - 1}}}"]
    for at, digit in enumerate(digits):
        if digit != "0":
            ways.append(_way(digits[:at], 0, int(digit) - 1, len(digits) - at - 1))
    return f"0*(?:{'|'.join(ways)})" if ways else "(?!)"


def _way(same: str, low: int, high: int, rest: int) -> str:
    """The same first digits, then one from ``low`` to ``high``, then any."""
    one = str(low) if low == high else f"[{low}-{high}]"
    return same + one + (f"[0-9]{{{rest}}}" if rest else "")
