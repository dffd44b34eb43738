"""A store that is slow, lies, cuts off or is away: that is said, nothing wrong gets in, and it goes on from there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import s3 as s3_module
from fleet.config import S3Config
from fleet.loop import Trouble
from fleet.model import Manifest
from fleet.s3 import ObjectStore
from hostagent.fetch import Means, fetch
from hostagent.kept import Kept
from hostagent.layout import Layout
from tests import s3_faults
from tests.hostagent.fleet import Host, Load, Machine, digest_of
from tests.s3_faults import Fault, Proxy
from tests.s3_fixtures import S3Server

PIECE = 128 * 1024
DATA = random.Random(3).randbytes(8 * PIECE)
MANIFEST = Manifest(service="app", build="b1", digest=digest_of(DATA), size=len(DATA), unpacked=1, files=1)

FAULTS: dict[str, tuple[Fault | None, str]] = {
    "refused": (None, "does not answer"),
    "hangs": (s3_faults.hangs, "does not answer"),
    "crawls": (s3_faults.crawls, "gave [0-9]+ bytes in 0"),
    "500": (s3_faults.fails, "could not .*build.tar.zst.*500"),
    "absent": (s3_faults.absent, "has no .*build.tar.zst"),
    "cut": (s3_faults.cut, "ended early|broke off"),
    "other bytes": (s3_faults.other_bytes, "its manifest promises"),
    "other range": (s3_faults.other_range, "and gave bytes 7-"),
    "no range": (s3_faults.no_range, "and gave all of it"),
    "other object": (s3_faults.other_object, "changed while it was read"),
}


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    with Proxy(s3.url) as made:
        yield made


@pytest.mark.parametrize("name", FAULTS)
def test_said_and_afterwards_it_goes_on(
    name: str, proxy: Proxy, s3_config: S3Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "PIECE", PIECE)
    fault, words = FAULTS[name]
    store = ObjectStore(s3_config.model_copy(update={"endpoint": proxy.url}))
    hasty = ObjectStore(s3_config.model_copy(update={"endpoint": proxy.url, "stall_seconds": 0.5}))
    store.put_new("builds/app/b1/build.tar.zst", DATA, "application/zstd")
    means = Means(Kept(Layout(tmp_path, tmp_path), "app", 0))
    archive = tmp_path / "b1.tar.zst"

    class Enough(Exception):
        pass

    def half(got: int) -> None:
        if got >= len(DATA) // 2:
            raise Enough

    with pytest.raises(Enough):
        fetch(store, MANIFEST, archive, means, half)
    proxy.breaks(fault)
    with pytest.raises(Trouble, match=words):
        # A well store may take longer than that, too, on a busy machine.
        fetch(hasty if name in ("hangs", "crawls") else store, MANIFEST, archive, means)
    assert not archive.exists()
    proxy.heals(listens=fault is not None)
    fetched = fetch(store, MANIFEST, archive, means).bytes
    assert archive.read_bytes() == DATA
    if name == "other bytes":
        assert fetched == len(DATA), "nothing of it was believed"
    else:
        assert fetched < len(DATA), "it went on where it was"


@pytest.fixture(scope="module")
def behind(short_tmp: Path, machine: Machine, s3: S3Server) -> Iterator[tuple[Machine, Proxy]]:
    """A host whose way to the store leads through the proxy."""
    with Proxy(s3.url) as proxy:
        config = s3.config("hostagent").model_copy(update={"endpoint": proxy.url, "stall_seconds": 1})
        made = Machine(short_tmp / "b", machine.zk, config, address=machine.address[:-1] + "4", name="host-4")
        yield made, proxy
        made.stop()


def test_a_host_says_it_harms_nothing_and_installs_when_the_store_is_well_again(
    behind: tuple[Machine, Proxy],
) -> None:
    machine, proxy = behind
    machine.ensure()
    host = Host(machine, "behind")
    host.configure()
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    before = host.pids("a1")
    host.publish("b1")
    with Load(host.endpoint(0)) as load:
        for serial, name in enumerate(FAULTS, 2):
            fault, _ = FAULTS[name]
            proxy.breaks(fault)
            host.enable(serial, "b1", "a1")
            said = host.failed(serial, "b1", 30).error
            assert said and ("S3 at" in said or "archive of b1" in said), f"{name}: {said}"
            proxy.heals(listens=fault is not None)
        host.reached(serial, 40)
    assert load.failures == [] and set(load.answers) == {"a1"}
    assert host.pids("a1") == before and host.member("b1")
    host.remove()
