"""The host's disk is full at one step after another: it is named, the other slot unharmed, and it goes on by itself."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.s3 import ObjectStore
from hostagent.fetch import Means, fetch, manifest
from hostagent.kept import Kept
from hostagent.layout import Layout
from tests.conftest import eventually
from tests.hostagent.fleet import Host, Load, Machine
from tests.s3_fixtures import S3Server

_MB = 1024 * 1024
_SIZE = 32 * _MB
_BLOB = random.Random(1).randbytes(3 * _MB)


class Disk:
    """A file system of its own, small enough to be full."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self) -> None:
        with self._filler.open("ab", buffering=0) as f:
            for size in (_MB, 4096):
                try:
                    while f.write(bytes(size)) == size:
                        pass
                except OSError as e:
                    assert e.errno == errno.ENOSPC

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture(scope="module")
def disk(short_tmp: Path) -> Iterator[Disk]:
    directory = short_tmp / "disk"
    directory.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "pinrail", str(directory))
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield Disk(directory)
    subprocess.run(("umount", str(directory)), check=True, timeout=10)


@pytest.fixture(scope="module")
def small(disk: Disk, machine: Machine, s3: S3Server) -> Iterator[Machine]:
    """A host whose disk it is; it shares ZooKeeper and the store with the tests' other host."""
    made = Machine(
        disk.directory,
        machine.zk,
        s3.config("hostagent"),
        address=machine.address[:-1] + "3",
        name="host-3",
        keys="disk_reserve = 0\nkeep_archives = 0",
    )
    yield made
    made.stop()


@pytest.fixture(scope="module")
def full(small: Machine, disk: Disk) -> Iterator[Host]:
    """a1 serves in slot 0 of a host whose disk has room."""
    small.ensure()
    host = Host(small, "full")
    host.configure()
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    yield host


def test_at_every_step_of_an_install(full: Host, disk: Disk) -> None:
    """The agent is killed before each step, as what is not there yet cannot be filled up under its hands in time."""
    install = ("sh", "-c", 'head -c 20000 /dev/zero > "$PINRAIL_INSTALL/made"')
    full.configure(full.config.model_copy(update={"pool": full.config.pool.model_copy(update={"install": install})}))
    full.publish("b1", extra={"blob": _BLOB})
    before = full.pids("a1")
    machine = full.machine
    with Load(full.endpoint(0)) as load:
        machine.kill_agent()
        full.enable(2, "b1", "a1")
        for point, words in (
            ("fetch.before", "fetch of full: No space left on device"),
            ("unpack.before", "unpack of full: No space left on device"),
            ("prepare.before", "No space left on device"),
            ("start.before", "start of full: No space left on device"),
            ("reached.before", f"cannot write {machine.directory}/state/full.json: No space left on device"),
        ):
            machine.start_agent(f"full:b1:{point}")
            assert machine.agent and machine.agent.wait(40) == -signal.SIGKILL, point
            disk.fill()
            machine.start_agent()
            said = full.failed(2, words).error
            assert said and str(machine.directory) in said, "it says which disk"
            assert full.pids("a1") == before
            if point != "reached.before":
                machine.kill_agent()
            disk.free()
        full.reached(2, 40)  # by the same agent that found no room
    assert load.failures == [] and set(load.answers) == {"a1"}
    assert full.pids("a1") == before and full.member("b1") and full.member("a1")


def test_what_serves_goes_on_serving_and_logging_may_wait(full: Host, disk: Disk) -> None:
    disk.fill()
    with Load(full.endpoint(0)) as load:
        assert [full.ask(0, "/loud")[0] for _ in range(20)] == [200] * 20
        eventually("some more", lambda: len(load.answers) > 200)
    assert load.failures == []
    disk.free()
    log = full.machine.directory / "log/full-0.p0.log"
    before = log.stat().st_size

    def grows() -> bool:
        full.ask(0, "/loud")
        return log.stat().st_size > before

    eventually("it is written again", grows)
    assert full.machine.agent and full.machine.agent.poll() is None
    full.reached(full.serial)


def test_a_download_that_fills_the_disk_is_kept_and_goes_on(
    full: Host, disk: Disk, store: ObjectStore, tmp_path: Path
) -> None:
    """The room was there when it began."""
    full.publish("c1", extra={"blob": _BLOB * 4})
    wanted = manifest(full.store, "full", "c1", full.digests["c1"])
    wanted = wanted.model_copy(update={"unpacked": 1})
    means = Means(Kept(Layout(tmp_path, tmp_path), "full", 0))
    archive = disk.directory / "c1.tar.zst"

    def fills(got: int) -> None:
        if got > wanted.size // 3 * 2 and not disk._filler.exists():
            disk.fill()

    with pytest.raises(OSError, match="No space left on device"):
        fetch(full.store, wanted, archive, means, fills)
    assert not archive.exists()
    disk.free()
    again = fetch(full.store, wanted, archive, means).bytes
    assert 0 < again <= wanted.size
    archive.unlink()
