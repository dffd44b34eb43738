"""An operator's own VCL inside a service's: what is taken from it, and what the compiler is made to say of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edge import render, server
from edge.members import Host
from fleet.model import Plan, ServiceConfig
from vcl.own import included, located

PLAN = Plan(epoch=1, generation=1, default="A", serving=("A",))


def compiled(own: str, directory: Path) -> tuple[int, str]:
    text = render.service("app", ServiceConfig(), PLAN, {"A": (Host("192.0.2.1", 80),)}, own).text
    (directory / "a.vcl").write_text(text)
    command = ["-p", f"cc_command={server.TCC}"] if server.tcc_is_here() else []
    line = ["varnishd", "-C", "-j", "none", "-n", str(directory / "n"), *command, "-f", str(directory / "a.vcl")]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stderr


def test_a_file_that_stands_alone_may_be_included() -> None:
    own = "# by hand\nvcl 4.1;\nimport std;\n"
    assert included(own) == "# by hand\n\nimport std;\n"


def test_without_own_vcl_nothing_is_included() -> None:
    sets = {"A": (Host("192.0.2.1", 80),)}
    plain = render.service("app", ServiceConfig(), PLAN, sets)
    assert plain == render.service("app", ServiceConfig(), PLAN, sets, " \n")
    assert plain.name != render.service("app", ServiceConfig(), PLAN, sets, "# a word").name


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("sub vcl_recv { set req.http.x = ; }", "sub vcl_recv { set req.http.x = ; }"),
        ("sub vcl_recv { if (req.url) {", "sub vcl_recv {"),
        ("/* never closed", "/*"),
        ("sub pr_choose { }", "pr_choose"),
        ("C{ int x; }C", "C{ int x; }C"),
        (
            "\n\nsub vcl_recv { unset req.http.X-Pinrail-Version; }",
            "Line 3 of this service's own VCL changes",
        ),
        ('sub vcl_backend_fetch { set bereq.http."x-pinrail-fetch" = "B"; }', "Line 1 of this service's own VCL"),
        ('import var as v;\nsub vcl_recv { v.set("pr_doc", "1"); }', "Line 1 of this service's own VCL"),
    ],
    ids=["syntax", "unclosed", "comment", "our-name", "inline-c", "unset", "set", "alias"],
)
def test_what_is_wrong_with_it_is_said_by_the_compiler(own: str, said: str, tmp_path: Path) -> None:
    code, output = compiled(own, tmp_path)
    assert code != 0 and said in output


def test_internal_headers_may_be_read_and_named_in_comments_and_strings(tmp_path: Path) -> None:
    own = """
    # set req.http.x-pinrail-version
    sub vcl_deliver {
        set resp.http.X-Version = req.http.x-pinrail-version; // unset req.http.x-pinrail-version
        set resp.http.X-Hint = "unset req.http.x-pinrail-version" + {"set req.http.x-pinrail-version"};
    }
    """
    code, output = compiled(own, tmp_path)
    assert code == 0, output


@pytest.mark.parametrize(
    ("own", "lines"),
    [
        ("vcl 4.1;\n\nsub vcl_recv {\n    set req.http.x = nonsense;\n}\n", ["4"]),
        ("sub vcl_recv { set req.http.x = nonsense; }", ["1"]),
        ("# a\u2028separator and a form\x0cfeed\nsub vcl_recv { set req.http.x = nonsense; }", ["2"]),
        ("\nsub vcl_recv { unset req.http.x-pinrail-a; }", []),  # "Line 2 of this service's own VCL" is said already
    ],
)
def test_where_it_is_wrong_is_said_by_the_line_of_its_own_file(own: str, lines: list[str], tmp_path: Path) -> None:
    _, output = compiled(own, tmp_path)
    said = located(output, (tmp_path / "a.vcl").read_text())
    assert re.findall(r"Line \d+ Pos \d+, line (\d+) of this service's own VCL", said) == lines


def test_places_elsewhere_are_left_as_the_compiler_says_them(tmp_path: Path) -> None:
    compiled("sub vcl_recv { }", tmp_path)
    text = (tmp_path / "a.vcl").read_text()
    ends = next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith("# --- the end of each sub;"))
    for said in ("Line 1 Pos 1", f"Line {ends} Pos 3", f"Line {ends + 40} Pos 3"):
        assert located(said, text) == said
    compiled("", tmp_path)
    assert located("Line 9 Pos 1", (tmp_path / "a.vcl").read_text()) == "Line 9 Pos 1"
