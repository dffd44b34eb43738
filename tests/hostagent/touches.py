"""Fetches b2, unpacks it beside b1, which it shares files with, and prunes b0: killed before its so many-th touch of
the disk, and then once more, as the next agent would go on. A process of its own for ``test_touches``: it forks, and so
must have no threads.

``python -m tests.hostagent.touches DIRECTORY ENDPOINT BUCKET CREDENTIALS DIGESTS``: prints for each number of touches
what there is afterwards, as JSON; the last line is what there is where nobody was killed. Each third number, and with
PINRAIL_EVERY_CALL=1 each.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fleet.config import S3Config
from fleet.files import sweep_unfinished, write_atomic
from fleet.model import ServiceConfig
from fleet.s3 import ObjectStore
from hostagent import contents, machine, seals
from hostagent import work as w
from hostagent.config import HostConfig
from hostagent.environments import Environments
from hostagent.layout import Layout
from hostagent.metrics import Metrics
from hostagent.slots import Slots
from hostagent.steps import Steps
from hostagent.supervisor import Supervisor
from hostagent.trust import Trust
from hostagent.unpack import sweep
from hostagent.users import Users

SERVICE = "web"
TOUCHES = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.chown", "os.truncate")
)


class Host:
    """The disk of a host, and what its agent does to it; supervisord is asked for nothing."""

    def __init__(self, directory: Path, s3: S3Config) -> None:
        config = HostConfig(name="h", address="127.0.0.1", zookeeper="none", directory=directory, s3=s3)
        self.layout = Layout.of(config)
        supervisor, users = Supervisor(self.layout.supervisor_socket), Users(config, self.layout)
        slots = Slots(config, self.layout, supervisor, users)
        self.environments = Environments(self.layout)
        store = ObjectStore(s3)
        trust = Trust((), self.layout, store)
        one_for_all = (self.layout, supervisor, slots, self.environments, users, store, trust, None, Metrics("h"))
        self._steps = Steps(SERVICE, config, *one_for_all)

    def begin(self) -> None:
        """As the agent does."""
        sweep(self.layout.releases(SERVICE))
        sweep_unfinished(self.layout.written())
        self.environments.sweep()

    def install(self, build: str, digest: str) -> None:
        if machine.releases(self.layout, SERVICE).get(build) != digest:
            if build not in machine.archives(self.layout, SERVICE)[0]:
                self._do(w.Fetch(build, digest))
            self._do(w.Unpack(build, digest))

    def prune(self, going: str) -> None:
        """As the plan asks for it, by what it is shown."""
        there = machine.releases(self.layout, SERVICE)
        left = machine.archives(self.layout, SERVICE)[1] | machine.leftovers(self.layout, SERVICE, there)
        if going in there or left:
            self._do(
                w.Prune(tuple(sorted({going} & there.keys() | left - there.keys())), tuple(sorted(left & there.keys())))
            )

    def _do(self, work: w.Work) -> None:
        self._steps.do(work, ServiceConfig(), lambda: None)

    def looks(self) -> dict[str, str]:
        """Every file of it, but for what tells one run from another."""
        top = self.layout.directory
        return {str(p.relative_to(top)): _look(p) for p in sorted(top.rglob("*")) if p.suffix != ".contents"}

    def unsealed(self) -> list[str]:
        """Files of b2 that the next unpacking would have to read."""
        held = contents.decode(self.layout.contents(SERVICE, "b2").read_bytes())
        assert held is not None
        whole = seals.unbroken(self.layout.release(SERVICE, "b2"), held)
        return sorted({m.name for m in held.members if m.kind == "file"} - set(whole))


def _look(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def child(do: Callable[[], None]) -> int:
    """Its exit status, negative where it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(count: int, directory: Path) -> None:
    """Before the so many-th touch of what lies below ``directory``."""
    left = count

    def see(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes or event in TOUCHES) and str(directory) in str(args):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)


def main(directory: Path, s3: S3Config, digests: dict[str, str]) -> None:
    before, here = directory / "before", directory / "h"

    def host() -> Host:
        return Host(here, s3)

    def prepare() -> None:
        made = host()
        for build in ("b0", "b1"):
            made.install(build, digests[build])

    def way() -> None:
        made = host()
        made.begin()
        made.install("b2", digests["b2"])
        made.prune("b0")

    def restore() -> None:
        """A copy has other inodes: its seals are made anew."""
        subprocess.run(("cp", "-a", before, here), check=True, timeout=60)
        layout = host().layout
        file = layout.contents(SERVICE, "b1")
        held = contents.decode(file.read_bytes())
        assert held is not None
        names = [m.name for m in held.members if m.kind == "file"]
        write_atomic(file, seals.anew(layout.release(SERVICE, "b1"), held, names).encode())

    assert child(prepare) == 0
    here.rename(before)
    step = 1 if os.environ.get("PINRAIL_EVERY_CALL") else 3
    for count in range(1, 1000, step):
        restore()

        def killed(count: int = count) -> None:
            die_at(count, here)
            way()

        first = child(killed)
        assert first in (0, -signal.SIGKILL), first
        again = child(way) if first else 0

        def tell(count: int = count, first: int = first, again: int = again) -> None:
            sys.stdout.write(json.dumps([count, first, again, host().looks(), host().unsealed()]) + "\n")
            sys.stdout.flush()

        assert child(tell) == 0
        shutil.rmtree(here)
        if first == 0:
            return


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        S3Config(endpoint=sys.argv[2], bucket=sys.argv[3], credentials=Path(sys.argv[4])),
        json.loads(sys.argv[5]),
    )
