"""Rendering: the same routing the same text, nothing of the plan that does not route, and nothing that breaks out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import render, server
from edge.members import Host
from edge.render import Route
from fleet.model import Match, Pin, Plan, Preview, Ramp, ServiceConfig, Staged
from vcl import Unprintable, escaped, quoted

CONFIG = ServiceConfig()
PLAN = Plan(epoch=4, generation=2, default="B", serving=("C", "B"), retired=("A",))
SETS = {"C": (Host("10.0.0.1", 8001), Host("10.0.0.2", 8001, 3)), "B": (Host("10.0.0.1", 8000),)}


def rendered(plan: Plan = PLAN, config: ServiceConfig = CONFIG, sets: object = None) -> render.Rendered:
    return render.service("app", config, plan, SETS if sets is None else sets)  # type: ignore[arg-type]


def test_the_same_routing_is_the_same_text_whatever_else_the_plan_says() -> None:
    other = PLAN.model_copy(
        update={"epoch": 9, "updated_by": "someone", "rollout": 3, "staged": Staged(generation=3, default="C")}
    )
    assert rendered(other) == rendered()


def test_the_staged_text_is_the_current_text_after_the_commit() -> None:
    offer = PLAN.model_copy(update={"staged": Staged(generation=3, default="C", ramp=Ramp(version="B", percent=5))})
    after = Plan(
        epoch=5, generation=3, default="C", serving=("C", "B"), ramp=Ramp(version="B", percent=5), retired=("A",)
    )
    assert rendered(offer.committed()).name == rendered(after).name != rendered(offer).name


def test_the_order_of_members_does_not_matter() -> None:
    assert rendered(sets={v: tuple(reversed(h)) for v, h in SETS.items()}) == rendered()


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 3},
        {"default": "C"},
        {"serving": ("B",)},
        {"ramp": Ramp(version="C", percent=1)},
        {"retired": ()},
        {"mode": "mixed"},
        {"previews": (Preview(version="P", token="0123456789abcdef", expires=0),)},
    ],
)
def test_what_routes_changes_the_name(change: dict[str, object]) -> None:
    assert rendered(PLAN.model_copy(update=change)).name != rendered().name


def test_hosts_that_are_known_to_be_well_are_so_from_the_start_and_the_new_ones_are_probed_first() -> None:
    vcl = rendered()
    new, *known = vcl.backends
    told = render.knowing(vcl, frozenset(known))
    assert re.findall(r"^backend (\S+) {$", told, re.MULTILINE) == [new, *sorted(known, reverse=True)]
    probes = dict(re.findall(r"^backend (\S+) \{.*?\.probe = (\w+);", told, re.MULTILINE | re.DOTALL))
    assert probes == {new: "pr_health", **dict.fromkeys(known, "pr_known")}
    # All else is the same, and what is known of nobody is the text itself.
    assert told.partition("sub vcl_init")[2] == vcl.text.partition("sub vcl_init")[2]
    assert render.knowing(vcl, ()) == vcl.text


def test_a_compiler_that_looks_for_a_name_does_not_go_through_the_backends() -> None:
    """It keeps one sorted list of names, and goes through it from its beginning for each that it reads: thousands of
    backends before any other name made for most of what a load took."""
    vcl = rendered()
    named = re.findall(r"^backend (\S+) {$", vcl.text, re.MULTILINE)
    assert sorted(named) == sorted(vcl.backends), "every host is there"
    assert named == sorted(named, reverse=True), "each comes before those that are there already"
    others = set(re.findall(r"^(?:sub|probe|import|\s+new) (\w+)", vcl.text, re.MULTILINE)) - set(named)
    assert others, "there are subs, probes, modules and directors"
    assert max(others) < min(named)


def test_backends_say_which_version_and_endpoint_they_are() -> None:
    assert sorted(rendered().backends.values()) == [
        ("B", "10.0.0.1:8000"),
        ("C", "10.0.0.1:8001"),
        ("C", "10.0.0.2:8001"),
    ]


def test_one_address_is_one_backend_in_a_mixed_pool_and_the_newer_version_has_it() -> None:
    sets = {"C": (Host("10.0.0.1", 8000),), "B": (Host("10.0.0.1", 8000), Host("10.0.0.2", 8000))}
    mixed = rendered(PLAN.model_copy(update={"mode": "mixed"}), sets=sets)
    assert sorted(mixed.backends.values()) == [("B", "10.0.0.2:8000"), ("C", "10.0.0.1:8000")]


def test_members_of_versions_that_the_plan_does_not_name_are_not_rendered() -> None:
    assert "10.9.9.9" not in rendered(sets={**SETS, "Z": (Host("10.9.9.9", 1),)}).text


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_different_names_are_different_symbols(a: str, b: str) -> None:
    assert (render.symbol(a) == render.symbol(b)) == (a == b)
    assert all(c.isascii() and (c.isalnum() or c == "_") for c in render.symbol(a))


@pytest.mark.parametrize("text", ['a"b', "a\nb", "a\x00b", "ü", '"}'])
def test_what_no_vcl_string_can_hold_is_refused(text: str) -> None:
    with pytest.raises(Unprintable):
        quoted(text)


def test_a_regular_expression_holds_a_name_literally() -> None:
    assert escaped("a.b+c|d") == r"a\.b\+c\|d"


def test_the_more_exact_match_comes_first_in_the_root() -> None:
    text = render.root(
        [
            Route("any", (Match(),)),
            Route("deep", (Match(path="/app/deep"),)),
            Route("exact", (Match(host="a.example"),)),
            Route("wild", (Match(host="*.example"),)),
        ],
        None,
    ).text
    order = [text.index(f"vcl(svc-{s})") for s in ("exact", "wild", "deep", "any")]
    assert order == sorted(order)


def test_the_colour_of_the_health_page_changes_the_root() -> None:
    routes = [Route("app", (Match(),))]
    assert len({render.root(routes, r).name for r in (None, "not yet", "no healthy host")}) == 3


AWKWARD = st.text("ABab01._-", min_size=1, max_size=12).filter(lambda s: s[0].isalnum())


@settings(max_examples=12, deadline=None)
@given(
    versions=st.lists(AWKWARD, min_size=1, max_size=3, unique=True),
    mode=st.sampled_from(["pinned", "mixed"]),
    percent=st.none() | st.integers(0, 100),
    token=st.text("!#$%&'*+.^_`|~0-9Az", min_size=1, max_size=12),
    retired=st.sampled_from(["forced", "conflict"]),
    hosts=st.integers(0, 3),
)
def test_whatever_the_names_allow_compiles(
    versions: list[str],
    mode: str,
    percent: int | None,
    token: str,
    retired: str,
    hosts: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    plan = Plan.model_validate(
        {
            "generation": 3,
            "default": versions[-1],
            "serving": versions,
            "mode": mode,
            "ramp": None if percent is None else {"version": versions[0], "percent": percent},
            "previews": [{"version": "p.1", "token": "-" * 16, "expires": 0}],
        }
    )
    config = ServiceConfig(pin=Pin(header=token, query=token, cookie=token, retired=retired))  # type: ignore[arg-type]
    sets = {v: tuple(Host(f"10.0.{n}.{h}", 80) for h in range(hosts)) for n, v in enumerate(versions)}
    directory: Path = tmp_path_factory.mktemp("vcl")
    (directory / "a.vcl").write_text(render.service("app", config, plan, sets).text)
    command = ["-p", f"cc_command={server.TCC}"] if server.tcc_is_here() else []
    result = subprocess.run(
        ["varnishd", "-C", "-j", "none", "-n", str(directory / "n"), *command, "-f", str(directory / "a.vcl")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "plan",
    [
        Plan(epoch=1, serving=("A",), staged=Staged(generation=1, default="A")),
        Plan(epoch=1, default="A", serving=("A",)),
        Plan(epoch=1, default="A", serving=("A",), mode="mixed"),
    ],
    ids=["first-offer", "many-hosts", "many-hosts-mixed"],
)
def test_first_offers_and_large_sets_compile(plan: Plan, tmp_path: Path) -> None:
    sets = {"A": tuple(Host(f"10.0.1.{n}", 80) for n in range(101))}
    (tmp_path / "a.vcl").write_text(rendered(plan, sets=sets).text)
    command = ["-p", f"cc_command={server.TCC}"] if server.tcc_is_here() else []
    result = subprocess.run(
        ["varnishd", "-C", "-j", "none", "-n", str(tmp_path / "n"), *command, "-f", str(tmp_path / "a.vcl")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
