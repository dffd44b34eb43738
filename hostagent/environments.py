"""What releases need beyond their own files, as it lies on the disk: complete or absent, shared, gone with its users.

An environment is a directory below ``venvs``, named by a digest of all that it is made from. It is made where it stays,
because a virtualenv's scripts hold its absolute path; a marker that is written last says that it is complete. Which one
a release uses is noted before it is made: the note is also what keeps it from being removed. Does not know what an
environment is made of; ``hostagent.prepare`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from fleet.files import read_or_none, sync_directory, write_atomic
from fleet.model import Pool, Wire, decode
from hostagent import failpoint, launch
from hostagent.layout import Layout
from hostagent.spec import SlotSpec
from hostagent.unpack import sync

_MARKER = ".pinrail-complete"
_TRASH = ".trash-"
#: Seconds between two looks whether somebody else has made the same.
_PAUSE = 0.2


class Note(Wire):
    """Beside a release: its environment, and what it was made on behalf of."""

    venv: str
    asked: str


def needed(release: Path, pool: Pool) -> bool:
    return bool(pool.install) or (release / "requirements.txt").is_file()


def ready(layout: Layout, service: str, build: str, digest: str, pool: Pool) -> bool:
    """Nothing is left to be done between unpacking and starting."""
    if not needed(layout.release(service, build), pool):
        return True
    note = _note(layout.prepared(service, build))
    return note is not None and note.asked == asked(digest, pool) and complete(layout, note.venv)


def of(layout: Layout, service: str, build: str, pool: Pool) -> str:
    """The environment of a release that is ready; empty where it has none."""
    note = _note(layout.prepared(service, build)) if needed(layout.release(service, build), pool) else None
    return note.venv if note else ""


def asked(digest: str, pool: Pool) -> str:
    """A build and a command: another of either, and the step is to be done again. It may find that nothing changed."""
    what = [digest, pool.install, sorted(pool.environment.items()) if pool.install else []]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def complete(layout: Layout, venv: str) -> bool:
    """A virtualenv whose python was taken away with the host's is none."""
    python = layout.venv(venv) / "bin/python"
    return (layout.venv(venv) / _MARKER).exists() and (python.exists() or not python.is_symlink())


def _note(file: Path) -> Note | None:
    try:
        return decode(Note, read_or_none(file))
    except ValidationError:
        return None  # as good as none: it is made again


class Environments:
    """One for all services of the host, whose steps run at the same time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        #: Guards the notes against ``sweep``, and who makes what.
        self._mutex = threading.Lock()
        self._making: set[str] = set()

    def make(
        self,
        service: str,
        build: str,
        note: Note,
        fill: Callable[[Path], None],
        give_up: Callable[[], None],
        user: int | None = None,
    ) -> None:
        """See to it that ``note.venv`` is there for the release. ``fill`` gets a fresh, empty directory, ``user``'s
        where there is one; when it is filled nobody but us may change it.

        Raises what ``fill`` or ``give_up`` raises, and OSError; nothing is left of it then.
        """
        file = self._layout.prepared(service, build)
        with self._mutex:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, note.encode())
        with self._alone(note.venv, give_up):
            if complete(self._layout, note.venv):
                return
            self._remove(note.venv)
            venv = self._layout.venv(note.venv)
            try:
                venv.mkdir(parents=True, mode=0o755)
                if user is not None:
                    os.chown(venv, user, user)
                fill(venv)
                self._end(note.venv)
                if user is not None:
                    _take_back(venv)
                sync(venv)
                failpoint.at(service, build, "prepare.filled")
                write_atomic(venv / _MARKER, b"")
            except BaseException:
                self._remove(note.venv)
                raise
            sync_directory(venv.parent)

    @contextmanager
    def _alone(self, venv: str, give_up: Callable[[], None]) -> Iterator[None]:
        """Two services with the same requirements: the second finds it made."""
        waiting = threading.Event()
        while True:
            give_up()
            with self._mutex:
                if venv not in self._making:
                    self._making.add(venv)
                    break
            waiting.wait(_PAUSE)
        try:
            yield
        finally:
            with self._mutex:
                self._making.remove(venv)

    def forget(self, service: str, build: str) -> None:
        """The release goes. What it used goes with ``sweep``, unless others use it."""
        self._layout.prepared(service, build).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what no release and no running pool uses, and what was left half made."""
        with self._mutex:
            used = self._used()
            for venv in self._layout.venvs.glob("[!.]*"):
                half = not (venv / _MARKER).exists()
                if venv.name not in self._making and (half or venv.name not in used):
                    self._hide(venv.name)
        for trash in self._layout.venvs.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)  # another service's sweep may be at it

    def _used(self) -> set[str]:
        directory = self._layout.directory
        notes = {n.venv for f in directory.glob("prepared/*/*.json") if (n := _note(f))}
        return notes | {s.venv for f in directory.glob("slots/*/*/spec.json") if (s := _spec(f))}

    def _remove(self, venv: str) -> None:
        self._hide(venv)
        shutil.rmtree(self._layout.venv(f"{_TRASH}{venv}"), ignore_errors=True)

    def _end(self, venv: str) -> None:
        """Whoever still fills it: left by an agent that was killed, or by a command that did not wait for its own."""
        pidfile = self._layout.install_pid(venv)
        if alive := launch.end_leftovers(pidfile):
            raise OSError(f"processes of a post-install do not end: {alive}")
        pidfile.unlink(missing_ok=True)

    def _hide(self, venv: str) -> None:
        """Out of sight first."""
        self._end(venv)
        directory, trash = self._layout.venv(venv), self._layout.venv(f"{_TRASH}{venv}")
        shutil.rmtree(trash, ignore_errors=True)
        if directory.exists():
            directory.rename(trash)


def _take_back(directory: Path) -> None:
    """By file descriptors: whoever filled it cannot lead us elsewhere by a symlink that was a directory just now."""
    for _, directories, files, fd in os.fwalk(directory, follow_symlinks=False):
        os.fchown(fd, 0, 0)
        for name in (*directories, *files):
            os.chown(name, 0, 0, dir_fd=fd, follow_symlinks=False)


def _spec(file: Path) -> SlotSpec | None:
    return decode(SlotSpec, read_or_none(file))
