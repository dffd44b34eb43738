"""A local fleet on paper: names, directories, ports and tokens of everything it has.

Makes and removes the fleet's directory, but writes nothing in it beside a marker. ``plan`` makes
the ``FleetState`` that all else is derived from. Every path below the fleet's directory is named here.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hostagent.layout import Layout as HostLayout
from pinrail.errors import CommandError
from pinrail.local import ports, processes, state

#: Bytes that a socket's path may have (108 with its end), less what parts put below the run directory.
_ROOM = 107 - 67
#: The demo's picture.
PICTURE = "flips.svg"
#: What builds are signed with, below ``config``.
SIGNING = "signing.pem"
#: What a fleet makes in its directory. Anything else there is not ours and is never touched.
_OURS = ("config", "data", "run", "logs", state.FILE, ".lock", ".gitignore", PICTURE)
_KEPT = ("logs", ".gitignore", PICTURE)


@dataclass(frozen=True)
class Layout:
    """Paths below one fleet's directory."""

    directory: Path
    run: Path

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def config(self, name: str) -> Path:
        return self.directory / "config" / name

    def data(self, name: str) -> Path:
        return self.directory / "data" / name

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"


def of(fleet: state.FleetState) -> Layout:
    return Layout(fleet.directory, fleet.run)


def claim(directory: Path) -> None:
    """Make the fleet's directory. Raises CommandError where something that is not a fleet's is in the way."""
    marker = directory / ".gitignore"
    if not HostLayout.takes(directory):
        allowed = "letters, digits and ._/+,=@~-"
        raise CommandError(f"{directory} cannot hold a fleet: use {allowed} only; choose another with --dir", 2)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not (directory / state.FILE).exists() and not _is_marker(marker):
            raise CommandError(f"{directory} is not empty and holds no fleet; choose another with --dir", 2)
        directory.chmod(0o700)
        marker.write_text("# Everything here was made by pinrail up, and pinrail down removes it.\n*\n")
    except FileExistsError as e:
        raise CommandError(f"{directory} is a file; choose a directory with --dir", 2) from e
    except OSError as e:
        raise CommandError(f"cannot use {directory} for the fleet: {e.strerror}; choose another with --dir") from e


def _is_marker(path: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        return "made by pinrail up" in path.read_text()
    return False


def plan(
    directory: Path,
    *,
    edges: int,
    hosts: int,
    barriers: int,
    zookeepers: int = 1,
    engine: state.Engine = "varnish",
    first_port: int | None,
) -> state.FleetState:
    """Raises ports.NoPort. Makes nothing yet."""
    chosen = ports.choose(
        directory, edges=edges, hosts=hosts, barriers=barriers, zookeepers=zookeepers, first=first_port
    )
    # Not derived from the directory alone: the processes of an earlier fleet in it are not this one's.
    fleet_id = f"{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}-{secrets.token_hex(4)}"
    own = directory / "run"
    run = own if len(os.fsencode(own)) <= _ROOM else Path(tempfile.gettempdir()) / f"pinrail-{fleet_id}"
    local = ports.LOOPBACK
    return state.FleetState(
        id=fleet_id,
        directory=directory,
        run=run,
        boot=processes.boot_id(),
        supervisor=state.SupervisorState(socket=run / "supervisor.sock"),
        edges=[
            state.EdgeState(
                id=f"edge-{n}",
                engine=engine,
                url=f"http://{local}:{e.listen}",
                admin=f"{local}:{e.admin}",
                metrics=f"http://{local}:{e.metrics}/metrics",
            )
            for n, e in enumerate(chosen.edges, 1)
        ],
        hosts=[
            state.HostState(
                id=f"host-{n}",
                address=h.address,
                url=f"http://{h.address}:{chosen.slots[0][0]}",
                metrics=f"http://{h.address}:{h.metrics}/metrics",
            )
            for n, h in enumerate(chosen.hosts, 1)
        ],
        barrier=[
            state.BarrierState(id=f"barrier-{n}", url=f"http://{local}:{port}")
            for n, port in enumerate(chosen.barriers, 1)
        ],
        s3=f"http://{local}:{chosen.s3}",
        s3_credentials=directory / "config" / "s3-credentials",
        zookeeper=state.ZooKeeperState(
            connect=",".join(f"{local}:{z.client}" for z in chosen.zookeepers) + "/pinrail",
            servers=[
                state.ZooKeeperServer(
                    id="zookeeper" if zookeepers == 1 else f"zookeeper-{n}",
                    address=f"{local}:{z.client}",
                    peers=(z.quorum, z.election) if zookeepers > 1 else None,
                )
                for n, z in enumerate(chosen.zookeepers, 1)
            ],
        ),
        prometheus=f"http://{local}:{chosen.prometheus}",
        token=state.Tokens(
            read=secrets.token_urlsafe(24), deploy=secrets.token_urlsafe(24), admin=secrets.token_urlsafe(24)
        ),
        slots={"ngapp": chosen.slots[0], "second": chosen.slots[1]},
    )


def remove(directory: Path, run: Path | None, *, keep: bool) -> None:
    """Remove what a fleet made; ``keep``: not its logs. What others put there stays, and with it the directory."""
    if run is not None and run.parent != directory:
        shutil.rmtree(run, ignore_errors=True)
    if keep:
        _collect_logs(directory)
    for name in _OURS:
        path = directory / name
        if keep and name in _KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def _collect_logs(directory: Path) -> None:
    """Copy the logs that parts keep in their data (a host's pools, its nginx) beside the others."""
    for path in (directory / "data").rglob("*.log"):
        if path.is_file() and not path.is_symlink():
            name = "-".join(path.relative_to(directory / "data").parts)
            with suppress(OSError):
                shutil.copyfile(path, directory / "logs" / name)
