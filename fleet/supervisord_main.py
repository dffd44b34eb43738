"""``python -m fleet.supervisord_main ARGUMENTS``: supervisord, which a full disk does not end.

It says on stderr that it could not write a log. Where stderr cannot be written either, it would die of that, and take
all that it runs along.
"""

from __future__ import annotations

import sys
from typing import TextIO, cast

from supervisor import supervisord

from fleet.log import Lossy


def main() -> None:
    sys.stderr = cast("TextIO", Lossy())
    supervisord.main()


if __name__ == "__main__":
    main()
