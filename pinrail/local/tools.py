"""The programs that the local fleet is made of: where they are, which version, and what to type where one is missing.

Looks, and runs ``--version``; changes nothing.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.nginx import server
from fleet import proc
from pinrail.local import zookeeper

#: Where servers are on Debian although an ordinary user's PATH does not say so.
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True)
class Tool:
    name: str
    #: Debian package, or what to type.
    package: str
    #: How it says its version; empty: it is not asked.
    ask: tuple[str, ...]
    #: What it is for, or what its absence means.
    why: str
    required: bool = True


TOOLS = (
    Tool("varnishd", "varnish", ("-V",), "the edges"),
    Tool("varnishlog", "varnish", ("-V",), "counts flip-flops at the edges"),
    Tool("nginx", "nginx", ("-v",), "in front of every slot on a host"),
    Tool("java", "default-jre-headless", ("-version",), "runs ZooKeeper"),
    Tool("tcc", "tcc", ("-v",), "compiles an edge's configuration in milliseconds; gcc takes seconds", required=False),
    Tool("gcc", "gcc", ("--version",), "compiles an edge's configuration where tcc is not installed", required=False),
    Tool("prometheus", "prometheus", ("--version",), "without it the fleet runs, but nothing keeps its metrics", False),
)


@dataclass(frozen=True)
class Finding:
    name: str
    state: Literal["ok", "slow", "missing"]
    version: str
    path: str
    why: str
    #: What to type; empty where there is nothing to do.
    fix: str


def search_path() -> str:
    """PATH with the system's directories after the user's own."""
    own = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(p for p in (*own, *_SYSTEM) if p))


def find(program: str) -> str | None:
    return shutil.which(program, path=search_path())


def _version(path: str, ask: tuple[str, ...]) -> str:
    try:
        output = proc.run((path, *ask), deadline=15).output
    except (OSError, proc.ProgramTimeout):
        return "does not say"
    number = re.search(r"\d+\.\d+[\w.+-]*", output)
    return number.group(0).rstrip(".") if number else "does not say"


def _tool(tool: Tool) -> Finding:
    path = find(tool.name)
    if path is not None:
        return Finding(tool.name, "ok", _version(path, tool.ask), path, tool.why, "")
    state: Literal["slow", "missing"] = "missing" if tool.required else "slow"
    return Finding(tool.name, state, "", "", tool.why, f"apt-get install {tool.package}")


def _zookeeper() -> Finding:
    why = "what all parts agree through"
    jars = zookeeper.jars()
    missing = [str(j) for j in jars if not j.exists()]
    if missing:
        return Finding("zookeeper", "missing", "", missing[0], why, "apt-get install libzookeeper-java libslf4j-java")
    number = re.search(r"\d+\.\d+[\d.]*\d", " ".join(p.name for p in zookeeper.JAR.parent.glob("zookeeper-[0-9]*.jar")))
    return Finding("zookeeper", "ok", number.group(0) if number else "", str(zookeeper.JAR), why, "")


def _package(name: str, why: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name), sys.prefix, why, "")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", "", "", why, "script/setup")


def inspect() -> list[Finding]:
    """Everything the local fleet needs or likes, in the order in which a person should put it right."""
    found = [Finding("python", "ok", platform.python_version(), sys.executable, "runs all of Pinrail", "")]
    found += [
        _package("supervisor", "keeps the parts running"),
        _package("swift", "the local object store"),
        _zookeeper(),
    ]
    tools = {f.name: f for f in map(_tool, TOOLS)}
    if tools["tcc"].state == tools["gcc"].state == "slow":
        gcc = tools["gcc"]
        tools["gcc"] = Finding("gcc", "missing", "", "", "varnishd needs a C compiler, tcc or gcc", gcc.fix)
    elif tools["tcc"].state == "ok" and tools["gcc"].state == "slow":
        tools["gcc"] = Finding("gcc", "ok", "not installed", "", "not needed: tcc is there", "")
    return [*found, _vmod_header(), _njs(), *tools.values()]


def _njs() -> Finding:
    why = "an nginx edge checks each answer with it"
    if (path := _module()) is None:
        return Finding(
            "njs", "slow", "", "", f"{why}; only needed by --engine nginx", "apt-get install libnginx-mod-http-js"
        )
    return Finding("njs", "ok", "present", str(path), why, "")


def _module() -> Path | None:
    return next((path for d in server.MODULES if (path := Path(d) / server.NJS).exists()), None)


def _vmod_header() -> Finding:
    """Varnish can replace a header, not add a second one; its templates import this module to add a cookie."""
    why = "the edges' VCL adds its cookie with it"
    found = next(iter(sorted(Path("/usr/lib").glob("*/varnish/vmods/libvmod_header.so"))), None)
    if found is None:
        return Finding("vmod header", "missing", "", "", why, "apt-get install varnish-modules")
    return Finding("vmod header", "ok", "present", str(found), why, "")


def missing_now(engine: Literal["varnish", "nginx"] = "varnish") -> list[str]:
    """One sentence for each thing without which a local fleet cannot start; quick, asks nobody for a version."""
    sentences = []
    if find("java") is None or not all(j.exists() for j in zookeeper.jars()):
        sentences.append(zookeeper.INSTALL)
    for tool in TOOLS:
        if tool.required and tool.name != "java" and find(tool.name) is None:
            sentences.append(f"{tool.name} is not installed: apt-get install {tool.package}")
    if (header := _vmod_header()).state == "missing":
        sentences.append(f"Varnish's module `header` is not installed: {header.fix}")
    if find("tcc") is None and find("gcc") is None:
        sentences.append("varnishd needs a C compiler: apt-get install tcc")
    if engine == "nginx" and _module() is None:
        sentences.append("njs is not installed: apt-get install libnginx-mod-http-js")
    return list(dict.fromkeys(sentences))
