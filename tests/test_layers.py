"""The house and its rooms: who may import whom. Read from the source: an import inside a function counts too."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("edge", "barrier", "hostagent", "pipeline", "pinrepo")
PACKAGES = ("fleet", *PARTS, "pinrail", "vcl", "nginx")

#: Each outside thing has its owners; nobody else imports what reaches it. Patterns of module names.
OWNERS: dict[str, tuple[str, ...]] = {
    "kazoo": ("fleet.zk", "fleet.zk_handler"),
    "boto3": ("fleet.s3_session",),
    "botocore": ("fleet.s3", "fleet.s3_session"),
    "subprocess": ("fleet.proc", "edge.flips", "pinrail.local.supervisord"),
    "multiprocessing": (),
    "supervisor": ("fleet.supervisord_main",),
    "xmlrpc": ("fleet.supervisord",),
    "swift": ("pinrail.local.s3server", "pinrail.local.s3auth"),
    "eventlet": ("pinrail.local.s3server", "pinrail.local.s3auth"),
    "socket": (
        "barrier.service",
        "edge.nginx.probes",
        "edge.sockets",
        "edge.varnish",
        "fleet.local_http",
        "fleet.zk_handler",
        "hostagent.ports",
        "pinrail.local.ports",
        "pinrail.local.ready",
        "pinrail.local.s3server",
        "pipeline.publish",  # for this machine's name
    ),
}

#: Modules that decide: a snapshot in, a plan out. These must be; others may say so of themselves, and are held to it.
MUST_BE_PURE = (
    "fleet.names",
    "fleet.model",
    "fleet.paths",
    "edge.render",
    "edge.plan",
    "edge.nginx.plan",
    "edge.nginx.render",
    "edge.members",
    "barrier.plans",
    "barrier.predicates",
    "barrier.machine",
    "barrier.turns",
    "hostagent.plan",
    "pinrail.demo.check",
    "pinrail.demo.observe",
    "pinrail.demo.result",
    "pinrail.local.programs",
    "pinrail.local.toml",
)
#: What a pure module may not touch: the world, the clock, chance, and counters.
IMPURE = (
    *OWNERS,
    *("asyncio", "concurrent", "ctypes", "datetime", "http", "io", "logging", "os", "random", "secrets", "select"),
    *("shutil", "signal", "sqlite3", "ssl", "sys", "tempfile", "threading", "time", "urllib.request", "uuid"),
    *("fastapi", "httpx", "prometheus_client", "rich", "structlog", "tenacity", "typer", "uvicorn"),
    *(
        "fleet.files",
        "fleet.local_http",
        "fleet.log",
        "fleet.loop",
        "fleet.proc",
        "fleet.ranges",
        "fleet.s3",
        "fleet.supervisord",
        "fleet.zk",
    ),
    *(f"{part}.metrics" for part in PARTS),
)


@dataclass(frozen=True)
class Import:
    by: str
    line: int
    #: Dotted; for ``from a import b`` both ``a`` and ``a.b``, as ``b`` may be a module.
    names: frozenset[str]

    def of(self, wanted: str) -> bool:
        return any(n == wanted or n.startswith(f"{wanted}.") for n in self.names)

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {min(self.names, key=len)}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(source: str, by: str, *, package: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(by, node.lineno, frozenset({alias.name}))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join((*above, *([base] if base else [])))
            yield Import(by, node.lineno, frozenset({base, *(f"{base}.{a.name}" for a in node.names)}))


def modules() -> dict[str, Path]:
    return {module_name(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}


def says_pure(path: Path) -> bool:
    return re.search(r"\bPure[.:;,]", ast.get_docstring(ast.parse(path.read_text())) or "") is not None


PURE = tuple(dict.fromkeys((*MUST_BE_PURE, *(n for n, p in modules().items() if says_pure(p)))))


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    found: list[Import] = []
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found += imports_in(path.read_text(), name, package=package)
    return found


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_reader_sees_every_form_of_import() -> None:
    source = "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h():\n    import i\n"
    seen = list(imports_in(source, "x.y.z", package="x.y"))
    assert [i.of(w) for i, w in zip(seen, ("a.b", "c.d", "x.y.e", "x.f.g", "i"), strict=True)] == [True] * 5
    assert not seen[0].of("a.bc")


def test_there_is_something_to_look_at(imports: list[Import]) -> None:
    assert len(imports) > 100
    assert {top(i.by) for i in imports} >= {"fleet", "edge", "barrier", "hostagent", "pinrail"}


def test_parts_never_import_each_other(imports: list[Import]) -> None:
    wrong = [str(i) for i in imports for part in PARTS if top(i.by) in PARTS and top(i.by) != part and i.of(part)]
    assert wrong == []


def test_only_the_command_imports_parts_and_nobody_imports_the_command(imports: list[Import]) -> None:
    assert [str(i) for i in imports if top(i.by) != "pinrail" and i.of("pinrail")] == []
    below = ("fleet", "vcl", "nginx")
    assert [str(i) for i in imports for part in PARTS if top(i.by) in below and i.of(part)] == []


@pytest.mark.parametrize("outside", sorted(OWNERS))
def test_each_outside_thing_has_its_owners(imports: list[Import], outside: str) -> None:
    wrong = [
        str(i) for i in imports if i.of(outside) and not any(fnmatch.fnmatchcase(i.by, o) for o in OWNERS[outside])
    ]
    assert wrong == [], f"only {', '.join(OWNERS[outside]) or 'nobody'} may import {outside}"


def test_the_pipeline_never_talks_to_zookeeper(imports: list[Import]) -> None:
    assert [str(i) for i in imports if top(i.by) == "pipeline" and (i.of("fleet.zk") or i.of("fleet.paths"))] == []


@pytest.mark.parametrize("name", PURE)
def test_what_decides_touches_nothing(imports: list[Import], name: str) -> None:
    assert name in modules(), "a pure module that is not there: was it renamed?"
    wrong = [str(i) for i in imports if i.by == name for w in IMPURE if i.of(w)]
    assert wrong == []


def test_pure_modules_rest_on_pure_ones(imports: list[Import]) -> None:
    """What a pure module imports of ours is pure, or only data: a config, a template."""
    data = ("config", "spec", "view", "snapshot", "actions")
    ours = modules()
    wrong = [
        str(i)
        for i in imports
        if i.by in PURE
        for n in i.names
        if n in ours and n not in PURE and "." in n and n.rpartition(".")[2] not in data
    ]
    assert wrong == []
