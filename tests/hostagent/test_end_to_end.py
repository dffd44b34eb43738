"""Builds on a real host: supervisord, nginx, S3 and ZooKeeper are the real ones, the agent is a process of its own."""

from __future__ import annotations

import json

from fleet.model import SlotState
from tests.conftest import eventually
from tests.hostagent.fleet import Host, Load


def test_a_build_becomes_a_registered_member(host: Host) -> None:
    host.publish("a1")
    host.enable(1, "a1")
    host.reached(1)
    member = host.member("a1")
    assert member and (member.serviceEndpoint.host, member.serviceEndpoint.port) == (host.address, host.ports[0])
    assert member.weight == 2
    status, headers, body = host.ask(0)
    assert status == 200 and json.loads(body)["build"] == "a1"
    assert headers.get_all("x-served-version") == ["a1"]
    assert headers["x-served-by"] == "host-1"
    slot = host.slot(0)
    assert slot and (slot.build, slot.state, slot.live) == ("a1", SlotState.SERVING, 2)
    assert (host.directory / "slots/app/0/current").resolve() == host.directory / "releases/app/a1"
    assert list((host.directory / "archives/app").iterdir()) == []


def test_the_next_build_goes_into_the_other_slot_and_the_first_notices_nothing(host: Host) -> None:
    host.publish("a1")
    host.publish("b1")
    host.publish("c1")
    host.enable(1, "a1")
    host.reached(1)
    before = host.pids("a1")
    with Load(host.endpoint(0)) as load:
        host.enable(2, "b1", "a1")
        host.reached(2)
        assert host.member("a1") and host.member("b1")
    assert load.failures == [] and set(load.answers) == {"a1"} and len(load.answers) > 50
    assert host.pids("a1") == before
    before = host.pids("b1")
    with Load(host.endpoint(1)) as load:
        host.enable(3, "c1", "b1")
        host.reached(3)
    assert load.failures == [] and set(load.answers) == {"b1"}
    assert host.pids("b1") == before
    assert host.member("a1") is None and not host.pids("a1")
    assert json.loads(host.ask(0)[2])["build"] == "c1"
    eventually("the archive of nobody is gone", lambda: not list((host.directory / "archives/app").iterdir()))
