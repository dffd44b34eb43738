"""Which members an edge believes."""

from __future__ import annotations

import pytest

from edge.members import Host, accept, address, host, hosts, wanted
from fleet.model import Endpoint, Member, Plan, Preview

PLAN = Plan(default="B", serving=("C", "B"))


def some(*numbers: int, port: int = 80) -> tuple[Host, ...]:
    return tuple(Host(f"10.0.0.{n}", port) for n in numbers)


def test_growth_and_small_losses_are_taken() -> None:
    assert accept({"B": some(1)}, {"B": some(1, 2, 3)}, PLAN).sets["B"] == some(1, 2, 3)
    assert accept({"B": some(1, 2, 3)}, {"B": some(1, 2)}, PLAN).sets["B"] == some(1, 2)
    assert accept({"B": some(1, 2)}, {"B": some(1)}, PLAN).sets["B"] == some(1)
    assert accept({"B": some(1, 2, 3, 4)}, {"B": some(1, 2)}, PLAN).held == {}


@pytest.mark.parametrize("left", [(), (1,), (1, 9)])
def test_a_loss_of_more_than_half_at_once_is_not_believed(left: tuple[int, ...]) -> None:
    last = {"B": some(1, 2, 3, 4, 5), "C": some(6)}
    result = accept(last, {"B": some(*left), "C": some(6)}, PLAN)
    assert set(result.sets["B"]) == {*last["B"], *some(*left)}  # who came is believed beside them
    assert result.sets["C"] == some(6)
    assert list(result.held) == ["B"]
    assert str(len(left)) in result.held["B"]


def test_the_last_member_is_kept() -> None:
    assert accept({"B": some(1)}, {"B": ()}, PLAN).sets["B"] == some(1)


def test_it_is_believed_when_the_plan_withdrew_the_version() -> None:
    result = accept({"A": some(1, 2)}, {"B": some(3)}, Plan(default="B", serving=("B",)))
    assert dict(result.sets) == {"B": some(3)} and not result.held


def test_all_hosts_moving_at_once_is_no_loss() -> None:
    assert accept({"B": some(1, 2)}, {"B": some(3, 4)}, PLAN).sets["B"] == some(3, 4)


def test_a_kept_host_whose_address_another_version_now_has_is_let_go() -> None:
    result = accept({"B": some(1, 2)}, {"B": (), "C": some(1)}, PLAN)
    assert result.sets["B"] == some(2) and result.sets["C"] == some(1)


def test_in_a_mixed_pool_hosts_may_all_move_from_one_version_to_the_other() -> None:
    mixed = Plan(default="B", serving=("C", "B"), mode="mixed")
    assert not accept({"B": some(1, 2)}, {"C": some(1), "B": some(2)}, mixed).held
    assert not accept({"C": some(1), "B": some(2)}, {"C": some(1, 2), "B": ()}, mixed).held
    assert accept({"C": some(1), "B": some(2)}, {}, mixed).sets == {"C": some(1), "B": some(2)}


def test_stopping_members_and_addresses_that_are_none_take_no_requests() -> None:
    def member(host: str, **more: object) -> Member:
        return Member.model_validate({"serviceEndpoint": Endpoint(host=host, port=80), **more})

    assert host(member("10.0.0.1", weight=3)) == Host("10.0.0.1", 80, 3)
    assert host(member("10.0.0.2", status="STOPPING")) is None
    assert host(member('x"; }')) == "'x\"; }' is not the IP address of a host"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("0:0:0::1", "::1")),
        *((bad, None) for bad in ("host-1.example", "localhost", " 10.0.0.1", "10.0.0.1\n", "10.0.0", "a b", "")),
        *((bad, None) for bad in ("::", "224.0.0.1", "fe80::1%eth0", "10.0.0.1:80", '10.0.0.1"; }')),
    ],
)
def test_an_address_is_an_ip_address_in_one_spelling(text: str, meant: str | None) -> None:
    assert address(text) == meant
    found = host(Member(serviceEndpoint=Endpoint(host=text, port=80)))
    assert found == Host(meant, 80) if meant else isinstance(found, str)


def test_one_endpoint_registered_twice_is_one_host() -> None:
    found = [host(Member(serviceEndpoint=Endpoint(host=h, port=80))) for h in ("::1", "0::1", "::1")]
    assert hosts(h for h in found if isinstance(h, Host)) == (Host("::1", 80),)


def test_previews_are_wanted_too() -> None:
    plan = Plan(default="B", serving=("B",), previews=(Preview(version="P", token="0123456789abcdef", expires=0),))
    assert wanted(plan) == ("B", "P")
