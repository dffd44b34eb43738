"""Hostile names: what the models let through changes the contents of strings and names in the VCL, and nothing else."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge import render
from edge.members import Host, host
from fleet.model import Member, Plan, ServiceConfig
from fleet.names import BadName, service_name
from vcl import Unprintable

_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>\#[^\n]*) | (?P<long>\{"\n"\}) | (?P<string>"[^"\n]*")
    | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*) | (?P<number>[0-9.]+\w*) | (?P<mark>[^\w\s"])""",
    re.VERBOSE,
)


def skeleton(text: str) -> list[str]:
    """The VCL without comments, its strings emptied, and what is named after versions and hosts without a name."""
    found, at = [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None, f"no VCL at {text[at : at + 40]!r}"
        at, word = token.end(), token.group()
        if token["string"]:
            word = '""'
        elif token["name"]:
            word = re.sub(r"^(web_|d_|pr_sick_d_|svc-).*?(\.[a-z_]+)?$", r"\1\2", word)
            word = re.sub(
                r"^((?:be)?req\.http\.)(?!x-pinrail|Cookie|Accept|Sec-|X-|Auth|Upgrade|Conn|Cont|Trans|host).*",
                r"\1",
                word,
            )
        elif not token["long"] and not token["mark"] and not token["number"]:
            continue
        found.append(word)
    return re.sub(r'(http\.) ""', r"\1", " ".join(found)).split(" ")


HOSTILE = st.text("ab1.-_/*#\"\\'{};()$^|?+&=!`~%:\n\r\t\0 é", max_size=80)
TOKENS = st.text("aZ09!#$%&'*+.^_`|~-", min_size=1, max_size=64)
BUILDS = st.text("aZ09._-", min_size=1, max_size=63)
PATHS = st.text("/aZ09._~-", min_size=1, max_size=60).map(lambda p: f"/{p}")


def rendered(
    service: str, versions: tuple[str, str], pin: tuple[str, str, str], token: str, paths: tuple[str, str], address: str
) -> str:
    header, query, cookie = pin
    config = ServiceConfig.model_validate(
        {
            "match": [{"host": "*", "path": paths[0]}],
            "pin": {"header": header, "query": query, "cookie": cookie},
            "health": {"path": paths[1]},
            "immutable": [paths[0]],
        }
    )
    plan = Plan.model_validate(
        {
            "generation": 1,
            "default": versions[0],
            "serving": versions,
            "retired": ["gone"],
            "previews": [{"version": versions[0], "token": token, "expires": 0}],
        }
    )
    member = Member.model_validate({"serviceEndpoint": {"host": address, "port": 80}})
    found = host(member)
    sets = {v: (found if isinstance(found, Host) else Host("192.0.2.1", 80),) for v in versions}
    vcl = render.service(service_name(service), config, plan, sets).text
    return vcl + render.root([render.Route(service, config.match)], None).text


KIND = rendered("app", ("a", "b"), ("h", "q", "c"), "t" * 16, ("/p/", "/h"), "192.0.2.1")
UNENDED = rendered("app", ("a", "b"), ("h", "q", "c"), "t" * 16, ("/p", "/h"), "192.0.2.1")


@settings(max_examples=150, deadline=None)
@given(
    service=HOSTILE | st.text("az09-", min_size=1, max_size=32),
    versions=st.tuples(HOSTILE | BUILDS, HOSTILE | BUILDS),
    pin=st.tuples(*[HOSTILE | TOKENS] * 3),
    token=HOSTILE | st.text("aZ09_-", min_size=16, max_size=128),
    paths=st.tuples(HOSTILE | PATHS, HOSTILE | PATHS),
    address=HOSTILE | st.sampled_from(["10.0.0.1", "::1", "a.example"]),
    keep=st.sets(st.sampled_from(["service", "versions", "pin", "token", "paths", "address"]), max_size=3),
)
def test_no_value_leaves_its_quotes(
    service: str,
    versions: tuple[str, str],
    pin: tuple[str, str, str],
    token: str,
    paths: tuple[str, str],
    address: str,
    keep: set[str],
) -> None:
    # Most are refused where they enter; so that some of each get through, only a few are hostile at a time.
    given_, kind = (service, versions, pin, token, paths, address), ("app", ("a", "b"), ("h", "q", "c"), "t" * 16)
    usual = (*kind, ("/p/", "/h"), "192.0.2.1")
    names = ("service", "versions", "pin", "token", "paths", "address")
    values = [g if n in keep else u for n, g, u in zip(names, given_, usual, strict=True)]
    try:
        text = rendered(*values)  # type: ignore[arg-type]
    except (ValidationError, BadName, Unprintable):
        return
    path = values[4][0]
    assert skeleton(text) == skeleton(KIND if path.endswith("/") else UNENDED)


def test_the_skeleton_sees_what_breaks_out() -> None:
    text = rendered("app", ("a", "b"), ("h", "q", "c"), "t" * 16, ("/p/", "/h"), "192.0.2.1")
    broken = text.replace('"192.0.2.1"', '"192.0.2.1"; .host_header = "x"', 1)
    assert skeleton(broken) != skeleton(KIND)
