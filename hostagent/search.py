"""Programs of this host: the PATH that services get, and the python that ``{python}`` means. Reads only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from fleet.loop import Trouble


class NoPython(Trouble):
    """A service asks for one, and the host has none."""


def path(config_path: Sequence[Path]) -> str:
    """``config_path`` is the host's own, from its file."""
    return os.pathsep.join([*map(str, config_path), os.environ.get("PATH", os.defpath)])


def python(config_path: Sequence[Path]) -> str:
    found = shutil.which("python3", path=path(config_path))
    if found is None:
        raise NoPython("there is no python3 on the host's `path` or PATH, and the service asks for it")
    return found
