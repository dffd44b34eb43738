"""Post-install: by the service's command, or by default a virtualenv with the build's own requirements.

Nothing gets into a virtualenv that ``requirements.txt`` does not name with a hash: everything it needs must be listed
(so pip checks that, instead of being told ``--no-deps``), and only wheels, because what an sdist needs to be built is
covered by no hash. Runs programs; the directory they fill is ``hostagent.environments``'s.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleet import proc
from fleet.files import write_atomic
from fleet.loop import Trouble
from fleet.model import Pool
from hostagent import environments, launch, search
from hostagent.config import HostConfig
from hostagent.environments import Environments, Note
from hostagent.layout import Layout
from hostagent.surroundings import NETWORK, SAFE, seen

GiveUp = Callable[[], None]
#: What is the same wherever it lies. A file with other lines (``-r more.txt``, ``./a.whl``) is shared with no build.
_PLAIN = re.compile(rb"\s*(#.*|[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,\s-]*\])?\s*===?.*|--hash=\S+\s*\\?|\\)?\s*")
_ABOUT = "import sys, sysconfig; print(sys.version, sys.base_prefix, sysconfig.get_platform())"
#: Seconds that a python may take to say what it is.
_ABOUT_SECONDS = 30.0
_TAIL_LINES, _TAIL_BYTES = 5, 1000


class PrepareFailed(Trouble):
    """A program ended badly, or not in time. The sentence has its last words."""


class Prepare:
    """The step, for one release."""

    def __init__(
        self, layout: Layout, host: HostConfig, service: str, build: str, pool: Pool, user: int | None
    ) -> None:
        self._layout = layout
        self._path = host.path
        self._inherit = (*SAFE, *host.inherit)
        self._user = user
        self._service = service
        self._build = build
        self._pool = pool
        self._release = layout.release(service, build)
        self._end = time.monotonic() + pool.install_seconds
        self._output = ""

    def run(self, all_of_them: Environments, digest: str, give_up: GiveUp) -> None:
        """Raises PrepareFailed, what ``give_up`` raises, or OSError; the environment is then not there."""
        python = search.python(self._path) if not self._pool.install or self._asks_for_python() else ""
        about = self._about(python, give_up) if python else ""
        asked = environments.asked(digest, self._pool)
        fresh = hashlib.sha256(about.encode())
        # A command is told what it is run for, and may keep it: what it makes is shared with nobody.
        own = [asked.encode(), self._service.encode(), self._build.encode()]
        for part in own if self._pool.install else self._recipe(digest):
            fresh.update(hashlib.sha256(part).digest())
        note = Note(venv=fresh.hexdigest()[:32], asked=asked)
        fill = self._command if self._pool.install else self._virtualenv

        def filling(venv: Path) -> None:
            try:
                fill(venv, python, give_up)
            finally:
                self._layout.logs.mkdir(parents=True, exist_ok=True)
                write_atomic(self._layout.install_log(self._service, self._build), self._output)

        all_of_them.make(self._service, self._build, note, filling, give_up, self._user)

    def _asks_for_python(self) -> bool:
        return any("{python}" in a for a in self._pool.install)

    def _about(self, python: str, give_up: GiveUp) -> str:
        try:
            result = proc.run((python, "-I", "-c", _ABOUT), deadline=_ABOUT_SECONDS, check=give_up)
        except proc.ProgramTimeout as e:
            raise PrepareFailed(f"{self._what}: {e}") from e
        if result.code != 0:
            raise PrepareFailed(f"{self._what}: {python} does not run: {tail(result.output)}")
        return result.output

    def _recipe(self, digest: str) -> list[bytes]:
        """All that the virtualenv is made from, besides its python."""
        requirements = (self._release / "requirements.txt").read_bytes()
        parts = [requirements]
        if not all(_PLAIN.fullmatch(line) for line in requirements.splitlines()):
            parts.append(digest.encode())
        for wheel in sorted(p for p in self._wheelhouse.glob("*") if p.is_file()):
            with wheel.open("rb") as f:
                parts += [wheel.name.encode(), hashlib.file_digest(f, "sha256").digest()]
        return parts

    @property
    def _wheelhouse(self) -> Path:
        return self._release / "wheelhouse"

    @property
    def _what(self) -> str:
        return f"post-install of {self._service} {self._build}"

    def _virtualenv(self, venv: Path, python: str, give_up: GiveUp) -> None:
        environment = {
            **seen(os.environ, (*self._inherit, *NETWORK)),
            "PATH": search.path(self._path),
            "HOME": str(venv),
            "PIP_NO_CACHE_DIR": "1",
        }
        self._program((python, "-I", "-m", "venv", str(venv)), venv, environment, give_up)
        offline = ("--no-index", "--find-links", str(self._wheelhouse)) if self._wheelhouse.is_dir() else ()
        pip = (str(venv / "bin/python"), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
        asked = ("--progress-bar", "off", "--only-binary", ":all:", "--require-hashes", "-r", "requirements.txt")
        self._program((*pip, *offline, *asked), venv, environment, give_up)

    def _command(self, venv: Path, python: str, give_up: GiveUp) -> None:
        environment = {
            **seen(os.environ, self._inherit),
            "HOME": str(venv),
            **self._pool.environment,
            "PATH": search.path(self._path),
            "PINRAIL_VERSION": self._build,
            "PINRAIL_INSTALL": str(venv),
        }
        argv = [a.replace("{python}", python) for a in self._pool.install]
        self._program(argv, venv, environment, give_up)

    def _program(self, argv: Sequence[str], venv: Path, environment: Mapping[str, str], give_up: GiveUp) -> None:
        """To its end, behind the launcher: noted, so that a next agent can end what this one left behind."""
        pidfile = self._layout.install_pid(venv.name)
        user = "-" if self._user is None else str(self._user)
        noted = (sys.executable, "-I", "-S", launch.__file__, "--noted", str(pidfile), user, *argv)
        left = max(0.1, self._end - time.monotonic())
        try:
            result = proc.run(noted, deadline=left, cwd=self._release, env=environment, check=give_up)
        except proc.ProgramTimeout as e:
            limit = f"pool.install_seconds = {self._pool.install_seconds:g}"
            raise PrepareFailed(f"{self._what}: {Path(argv[0]).name} was not done in time ({limit})") from e
        self._output += f"$ {' '.join(argv)}\n{result.output}"
        if result.code != 0:
            raise PrepareFailed(f"{self._what} failed ({result.code}): {tail(result.output)}")


def tail(output: str) -> str:
    """Its last words, for people."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " | ".join(lines[-_TAIL_LINES:])[-_TAIL_BYTES:]
