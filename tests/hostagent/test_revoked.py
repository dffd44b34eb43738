"""A host that asks for signatures, and a build on its disk that may not be started any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.signing import PrivateKey
from pipeline.publish import publish
from tests.conftest import eventually
from tests.hostagent.fleet import SERVE, Host, Load, Machine
from tests.s3_fixtures import S3Server

KEY = PrivateKey.generate()


@pytest.fixture
def host(short_tmp: Path, machine: Machine, s3: S3Server) -> Iterator[Host]:
    """In place: what is stopped for a build that then does not start is missed at once."""
    made = Machine(
        short_tmp / "s",
        machine.zk,
        s3.config("hostagent"),
        address=machine.address[:-1] + "8",
        name="host-8",
        keys=f'signing_keys = ["{KEY.public.text}"]',
    )
    made.ensure()
    host = Host(made, "signed")
    host.configure(host.config.model_copy(update={"strategy": "inplace", "ports": host.ports[:1]}))
    yield host
    host.tell()
    host.remove()
    made.stop()


def test_nothing_is_stopped_for_a_build_that_may_not_be_started(host: Host, tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text(SERVE)
    (tmp_path / "mode").write_text("ok")
    for serial, build in enumerate(("a1", "b1"), 1):
        (tmp_path / "which").write_text(build)
        host.digests[build] = publish(host.store, tmp_path, host.service, build, key=KEY).manifest.digest
        host.enable(serial, build)
        host.reached(serial)
    before = host.pids("b1")
    host.configure(host.config.model_copy(update={"revoked_below": 2}))
    with Load(host.endpoint(0)) as load:
        host.enable(3, "a1")
        host.failed(3, "a1 was revoked: its counter is 1, and all below 2 are")
        host.enable(4, "b1")
        host.reached(4)
    assert load.failures == [] and set(load.answers) == {"b1"}
    assert host.pids("b1") == before and host.member("b1")
    # One that it has not kept is asked for first, and the release is started as it is.
    (host.machine.directory / f"state/{host.service}.revoked").unlink()
    (host.machine.directory / f"manifests/{host.service}/a1.sig").unlink()
    installed = (host.releases / "a1").stat().st_ino
    host.configure(host.config.model_copy(update={"revoked_below": 0}))
    host.enable(5, "a1")
    host.reached(5)
    eventually("it is a1 that serves", lambda: host.member("a1"))
    assert (host.releases / "a1").stat().st_ino == installed
