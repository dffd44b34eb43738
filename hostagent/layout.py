"""Where everything lies on a host: the one owner of names below the host's directories. Pure.

``directory`` survives a reboot (releases, slots, state, logs); ``run`` need not (sockets and process files) and must
be short, because a unix socket's path holds 107 bytes.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet.config import BadConfig
from hostagent.config import HostConfig

#: Longest path of a unix socket, without the closing zero.
SOCKET_PATH_MAX = 107
#: supervisord binds ``<socket>.<pid>`` first.
_SUPERVISOR_SUFFIX = len(".4194304")
#: These paths go into supervisord's and nginx's files, whose rules for quoting differ: allow what needs none.
_PLAIN = re.compile(r"/[A-Za-z0-9._/+,=@~-]*")
_GROUP = re.compile(r"(?P<service>[a-z][a-z0-9-]*)-(?P<slot>[0-9])@(?P<build>[A-Za-z0-9][A-Za-z0-9._-]*)")


def index_of(archive: Path) -> Path:
    """Of which chunks it is made."""
    return archive.with_name(f"{archive.name}.chunks")


@dataclass(frozen=True)
class Group:
    """A supervisor group's name says what it runs, so that the truth comes from supervisord and no file beside it."""

    service: str
    slot: int
    build: str

    def __str__(self) -> str:
        return f"{self.service}-{self.slot}@{self.build}"

    @staticmethod
    def parse(name: str) -> Group | None:
        """None for a name that is not ours."""
        m = _GROUP.fullmatch(name)
        return Group(m["service"], int(m["slot"]), m["build"]) if m else None


@dataclass(frozen=True)
class Layout:
    directory: Path
    run: Path

    @staticmethod
    def takes(path: Path) -> bool:
        """May releases live below ``path``? It ends up in the files of nginx and supervisord."""
        return _PLAIN.fullmatch(str(path)) is not None

    @staticmethod
    def of(config: HostConfig) -> Layout:
        """Raises BadConfig where the directories cannot be used."""
        directory = config.directory
        layout = Layout(directory, config.run or directory / "run")
        for key, path in (("directory", layout.directory), ("run", layout.run)):
            if not Layout.takes(path):
                raise BadConfig(f"{key} = {str(path)!r}: must be absolute, of letters, digits and ._/+,=@~- only")
        if layout.supervisor_too_long():
            raise BadConfig(
                f"the path {layout.supervisor_socket} is too long for a socket: set `run` to a shorter directory"
            )
        return layout

    def said(self, e: OSError) -> str:
        """What went wrong, and where: a write that finds no room does not say on which disk."""
        why = e.strerror or str(e)
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            return f"{why} ({e.filename})" if e.filename else why
        return f"{why} (on the disk of {self.directory}: {e.filename or 'make room there'})"

    # -- the host --

    @property
    def agent_lock(self) -> Path:
        return self.directory / "agent.lock"

    @property
    def supervisord_conf(self) -> Path:
        return self.directory / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def conf_d(self) -> Path:
        return self.directory / "conf.d"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    def written(self) -> Iterator[Path]:
        """Directories that only the agent writes small files to."""
        yield from (self.conf_d, self.logs, self.directory / "state")
        for kind in ("archives/*", "chunks/*", "manifests/*", "prepared/*", "slots/*/*", "slots/*/*/nginx"):
            yield from self.directory.glob(kind)

    # -- a service --

    def archives(self, service: str) -> Path:
        return self.directory / "archives" / service

    def archive(self, service: str, build: str) -> Path:
        return self.archives(service) / f"{build}.tar.zst"

    def promise(self, service: str, build: str) -> Path:
        """The manifest that the archive beside it was fetched for."""
        return self.archives(service) / f"{build}.json"

    def downloads(self, service: str, build: str) -> tuple[Path, ...]:
        """All that fetching a build may leave behind."""
        archive = self.archive(service, build)
        parts = (archive.with_name(f"{archive.name}.part{end}") for end in ("", ".ranges"))
        return (archive, *parts, index_of(archive), self.promise(service, build))

    def kept(self, service: str, build: str) -> Path:
        """The archive of a release that was unpacked: a source of chunks for the next one."""
        return self.directory / "chunks" / service / f"{build}.tar.zst"

    def releases(self, service: str) -> Path:
        return self.directory / "releases" / service

    def release(self, service: str, build: str) -> Path:
        """Complete where ``manifest`` is there too."""
        return self.releases(service) / build

    def manifest(self, service: str, build: str) -> Path:
        """What ``release`` was unpacked from. Beside the releases: among them, a build could be named like it."""
        return self.directory / "manifests" / service / f"{build}.json"

    def signatures(self, service: str, build: str) -> Path:
        """Who vouches for the release, as the store last said."""
        return self.directory / "manifests" / service / f"{build}.sig"

    def contents(self, service: str, build: str) -> Path:
        """What the release was made to hold (``hostagent.contents``), for the next to share."""
        return self.directory / "manifests" / service / f"{build}.contents"

    def revoked(self, service: str) -> Path:
        """The highest ``revoked_below`` that this host has ever seen."""
        return self.directory / "state" / f"{service}.revoked"

    @property
    def users(self) -> Path:
        """Which service runs as which user."""
        return self.directory / "state" / "users.json"

    def home(self, service: str) -> Path:
        """What a service's user may call its own."""
        return self.directory / "home" / service

    @property
    def venvs(self) -> Path:
        """What post-install made, shared by all services; see ``hostagent.environments``."""
        return self.directory / "venvs"

    def venv(self, name: str) -> Path:
        return self.venvs / name

    def install_pid(self, venv: str) -> Path:
        """Who fills it. Its name begins with a dot, as no environment's does."""
        return self.venvs / f".{venv}.pid"

    def prepared(self, service: str, build: str) -> Path:
        """Which of ``venvs`` was made for that release."""
        return self.directory / "prepared" / service / f"{build}.json"

    def install_log(self, service: str, build: str) -> Path:
        return self.logs / f"{service}.install-{build}.log"

    def reached(self, service: str) -> Path:
        return self.directory / "state" / f"{service}.json"

    # -- a slot --

    def slot(self, service: str, index: int) -> Path:
        return self.directory / "slots" / service / str(index)

    def current(self, service: str, index: int) -> Path:
        """The symlink to the slot's release."""
        return self.slot(service, index) / "current"

    def spec(self, service: str, index: int) -> Path:
        """What the slot's processes were last told to be (``hostagent.spec``)."""
        return self.slot(service, index) / "spec.json"

    def nginx_prefix(self, service: str, index: int) -> Path:
        return self.slot(service, index) / "nginx"

    def group_conf(self, service: str, index: int) -> Path:
        return self.conf_d / f"{service}-{index}.conf"

    def slot_run(self, service: str, index: int) -> Path:
        """Process files, and nginx's own socket."""
        return self.run / f"{service}-{index}"

    def sockets(self, service: str, index: int) -> Path:
        """Of the pool, whose user owns it. Nothing that we believe may lie in it."""
        return self.slot_run(service, index) / "s"

    def log(self, service: str, index: int, process: str) -> Path:
        return self.logs / f"{service}-{index}.{process}.log"

    def slot_logs(self, service: str, index: int) -> list[Path]:
        """Those of the slot's processes that there are, its nginx's first."""
        return sorted(self.logs.glob(f"{service}-{index}.*.log"))

    def too_long(self, service: str, index: int) -> Path | None:
        """The longest socket path that would not fit, or None."""
        longest = self.sockets(service, index) / "p255.sock"
        return longest if len(str(longest).encode()) > SOCKET_PATH_MAX else None

    def supervisor_too_long(self) -> bool:
        return len(str(self.supervisor_socket).encode()) + _SUPERVISOR_SUFFIX > SOCKET_PATH_MAX
