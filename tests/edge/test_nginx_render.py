"""The rendered nginx configuration: deterministic, told apart by what decides a request, safe against its inputs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import offline
from edge.members import Host, Sets
from edge.nginx import numbers, render
from edge.nginx import offline as nginx_offline
from edge.nginx.render import Part, Place
from edge.render import Route
from fleet.model import Match, Pin, Plan, Preview, Ramp, ServiceConfig, Staged
from nginx import Unprintable, escaped, quoted

PLACE = Place("/var/lib/edge", "127.0.0.1:80", "127.0.0.1:81", 2, 1024, 60, None)
SETS: Sets = {"A": (Host("10.0.0.1", 8000),), "B": (Host("10.0.0.1", 8001),)}
PLAN = Plan(epoch=5, generation=3, default="A", serving=("B", "A"), staged=Staged(generation=4, default="B"))


def part(plan: Plan = PLAN, config: ServiceConfig | None = None, sets: Sets = SETS) -> Part:
    return render.part("app", config or ServiceConfig(), plan, sets, PLACE)


def text(*parts: Part, routes: tuple[Route, ...] = (Route("app", (Match(),)),)) -> str:
    return render.configuration(parts, routes, PLACE).text


def test_what_does_not_decide_a_request_does_not_change_the_name() -> None:
    other = PLAN.model_copy(update={"epoch": 9, "updated_by": "me", "rollout": 7})
    assert part(other).name == part().name
    assert text(part(other)) == text(part())


def test_a_staged_routing_has_the_key_that_it_has_once_committed() -> None:
    after = PLAN.committed().model_copy(update={"epoch": 6, "staged": Staged(generation=5, default="A")})
    assert part().staged == part(after).current != part().current


def test_hosts_change_the_part_and_not_the_routing() -> None:
    fewer = part(sets={"A": SETS["A"], "B": ()})
    assert fewer.name != part().name
    assert (fewer.current, fewer.staged) == (part().current, part().staged)


def test_a_version_without_healthy_hosts_is_gone_where_the_default_has_some() -> None:
    alone = PLAN.model_copy(update={"staged": None})
    gone = '"~^/(?<pr_v>B) (?!preview)" "$pr_app__default forced $pr_v gone"'
    assert gone in text(part(alone, sets={"A": SETS["A"]}))
    assert gone in text(part(sets={"A": SETS["A"]})), "staged, but not yet the default"
    assert "$pr_v gone" not in text(part(alone, sets={"B": SETS["B"]}))


def test_one_address_in_two_versions_is_one_server_of_a_mixed_pool() -> None:
    mixed = Plan(generation=1, default="A", serving=("B", "A"), mode="mixed")
    assert text(part(mixed, sets={"A": SETS["A"], "B": SETS["A"]})).count("server 10.0.0.1:8000 ") == 2  # kept, fresh


def test_weights_and_ipv6_addresses_reach_the_upstream() -> None:
    assert "server [2001:db8::1]:80 weight=7 " in text(part(sets={"A": (Host("2001:db8::1", 80, 7),)}))


@pytest.mark.parametrize("name", ["x.pin", "x pin", "x_pin", "x$pin"])
def test_a_header_that_nginx_cannot_read_is_refused_in_words(name: str) -> None:
    config = ServiceConfig(pin=Pin.model_construct(header=name, query="dpl", cookie="c", retired="forced"))
    with pytest.raises(Unprintable, match=re.escape("pin.header")):
        part(config=config)


@pytest.mark.parametrize("evil", ['a"b', "a\nb", "a\\", "é", "a\x00b"])
def test_what_could_end_a_string_is_refused(evil: str) -> None:
    for escape in (quoted, escaped):
        with pytest.raises(Unprintable):
            escape(evil)


def test_a_dollar_is_no_variable() -> None:
    assert quoted("a$uri") == '"a${pr_dollar}uri"'


@given(limit=st.integers(0, 10**10), number=st.integers(0, 10**10) | st.none(), zeros=st.integers(0, 3))
def test_numbers_are_compared(limit: int, number: int | None, zeros: int) -> None:
    for n in (limit - 1, limit, limit + 1) if number is None else (number,):
        if n >= 0:
            digits = "0" * zeros + str(n)
            assert (re.fullmatch(numbers.above(limit), digits) is not None) == (n > limit)
            assert (re.fullmatch(numbers.below(limit), digits) is not None) == (n < limit)


AWKWARD = st.text("ABab01._-", min_size=1, max_size=12).filter(lambda s: s[0].isalnum())
TOKEN = st.text("!#$%&'*+.^_`|~0-9Az", min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(
    versions=st.lists(AWKWARD, min_size=1, max_size=3, unique=True),
    mode=st.sampled_from(["pinned", "mixed"]),
    percent=st.none() | st.integers(0, 100),
    header=st.text("AZaz-09", min_size=1, max_size=12),
    query=TOKEN,
    cookie=TOKEN,
    retired=st.sampled_from(["forced", "conflict"]),
    hosts=st.integers(0, 3),
    staged=st.booleans(),
    service=st.sampled_from(["app", "a", "none-pass", "a--b"]),
)
def test_whatever_the_names_allow_is_accepted_by_nginx(
    versions: list[str],
    mode: str,
    percent: int | None,
    header: str,
    query: str,
    cookie: str,
    retired: str,
    hosts: int,
    staged: bool,
    service: str,
) -> None:
    plan = Plan.model_validate(
        {
            "generation": 3,
            "default": versions[-1],
            "serving": versions,
            "mode": mode,
            "ramp": None if percent is None else {"version": versions[0], "percent": percent},
            "previews": [{"version": "p.1", "token": "-" * 16, "expires": 0}],
            "staged": {"generation": 4, "default": versions[0]} if staged else None,
        }
    )
    config = ServiceConfig(pin=Pin(header=header, query=query, cookie=cookie, retired=retired))  # type: ignore[arg-type]
    sets = {v: tuple(Host(f"10.0.{n}.{h}", 80) for h in range(hosts)) for n, v in enumerate(versions)}
    assert nginx_offline.test([offline.Given(service, config, plan, sets)]) is None


@pytest.mark.parametrize(
    "plan",
    [
        Plan(epoch=1, serving=("A",), staged=Staged(generation=1, default="A")),
        Plan(epoch=1, default="A", serving=("A",), ramp=Ramp(version="A", percent=0)),
        Plan(epoch=1, default="A", serving=("A", "a"), previews=(Preview(version="A", token="t" * 16, expires=0),)),
    ],
    ids=["first-offer", "many-hosts", "case"],
)
def test_first_offers_large_sets_and_names_that_differ_in_case_are_accepted(plan: Plan) -> None:
    sets = {"A": tuple(Host(f"10.{n}.1.1", 80) for n in range(250))}
    assert nginx_offline.test([offline.Given("app", ServiceConfig(), plan, sets)]) is None


def test_two_services_whose_names_look_alike_do_not_meet() -> None:
    parts = [render.part(name, ServiceConfig(), PLAN, SETS, PLACE) for name in ("a", "a-b", "a--b")]
    whole = text(*parts, routes=tuple(Route(p.service, (Match(path=f"/{p.service}/"),)) for p in parts))
    names = re.findall(r"^(?:map .* (\$\S+) \{|upstream (\S+) \{|    location (@\S+) \{)$", whole, re.MULTILINE)
    flat = ["".join(n) for n in names]
    assert len(flat) == len(set(flat)) > 100
