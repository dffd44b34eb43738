"""varnishd, started from the last good set. ``prepare`` writes what it needs, ``argv`` says how; ``run`` becomes it.

The boot file loads the last good VCLs one by one, and each may fail without keeping varnishd from starting: then it
comes up with a root that knows no service and says so. Its health page is red until an agent has applied the latest
plan.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import NoReturn

from edge import render
from edge.config import EdgeConfig, each
from fleet.config import BadConfig
from fleet.files import read_or_none, write_atomic

NOT_YET = "no plan has been applied since this edge was started"
TCC = "exec tcc -shared -o %o %s"

_PARAMETERS = {
    "feature": "-http2",
    "debug": "+vclrel",
    "http_max_hdr": "128",
    "max_restarts": "6",
    "thread_pools": "2",
    "thread_pool_min": "20",
    "thread_pool_max": "1000",
    "vsl_space": "32m",
    "pcre2_depth_limit": "200",
    # The agent asks every few seconds; each of its questions would be a line in the system's log.
    "syslog_cli_traffic": "off",
}


def secret_file(config: EdgeConfig) -> Path:
    return config.directory / "secret"


def boot_file(config: EdgeConfig) -> Path:
    return config.directory / "boot.cli"


def workdir(config: EdgeConfig) -> Path:
    return (config.varnish.workdir or config.directory / "varnish").absolute()


def tcc_is_here() -> bool:
    return shutil.which("tcc") is not None


def compiler(config: EdgeConfig) -> str | None:
    """varnishd's cc_command; None: its own."""
    choice = config.varnish.compiler
    if choice == "tcc" or (choice == "auto" and tcc_is_here()):
        return TCC
    return None


def prepare(config: EdgeConfig) -> None:
    """The directory, the CLI secret and, where there is none yet, a first boot file. Idempotent."""
    try:
        config.directory.mkdir(parents=True, exist_ok=True)
        if read_or_none(secret_file(config)) is None:
            write_atomic(secret_file(config), secrets.token_hex(32) + "\n", 0o600)
        if read_or_none(boot_file(config)) is None:
            write_boot(config, {}, ())
    except OSError as e:
        raise BadConfig(f"directory = {config.directory}: {e.strerror}") from e


def write_boot(config: EdgeConfig, services: dict[str, render.Rendered], routes: tuple[render.Route, ...]) -> None:
    """Make ``services`` (by name) and the root for ``routes`` what varnishd boots from. Complete or not at all."""
    directory = config.directory / "vcl"
    directory.mkdir(exist_ok=True)
    empty, full = render.root((), NOT_YET), render.root(routes, NOT_YET)
    for r in (empty, full, *services.values()):
        path = _vcl_file(config, r)
        if read_or_none(path) != r.text.encode():
            write_atomic(path, r.text)
    lines = [_load(config, empty), f"vcl.use {empty.name}"]
    for s, r in services.items():
        lines += [f"-{_load(config, r)}", f"-vcl.label {render.label(s)} {r.name}"]
    if full.name != empty.name:
        lines += [f"-{_load(config, full)}", f"-vcl.use {full.name}"]
    write_atomic(boot_file(config), "\n".join(lines) + "\n")
    keep = {f"{r.name}.vcl" for r in (empty, full, *services.values())}
    for old in directory.glob("*.vcl"):
        if old.name not in keep:
            old.unlink(missing_ok=True)


def _vcl_file(config: EdgeConfig, r: render.Rendered) -> Path:
    return (config.directory / "vcl" / f"{r.name}.vcl").absolute()


def _load(config: EdgeConfig, r: render.Rendered) -> str:
    return f'vcl.load {r.name} "{_vcl_file(config, r)}" warm'


def argv(config: EdgeConfig) -> list[str]:
    """varnishd's command line. Pure but for looking whether tcc is installed."""
    v = config.varnish
    line = [v.program, "-F"]
    if v.jail == "none":
        line += ["-j", "none"]
    line += [word for listen in each(v.listen) for word in ("-a", listen)]
    line += [word for storage in each(v.storage) for word in ("-s", storage)]
    line += ["-T", v.admin, "-S", str(secret_file(config).absolute())]
    line += ["-n", str(workdir(config)), "-f", "", "-I", str(boot_file(config).absolute())]
    parameters = dict(_PARAMETERS)
    if command := compiler(config):
        parameters["cc_command"] = command
    for key, value in {**parameters, **v.parameters}.items():
        line += ["-p", f"{key}={value}"]
    return line


def run(config: EdgeConfig) -> NoReturn:
    """Become varnishd. Raises BadConfig where it is not installed."""
    prepare(config)
    line = argv(config)
    program = shutil.which(line[0])
    if program is None:
        raise BadConfig(f"varnish.program = {line[0]!r} is not installed: apt-get install varnish")
    os.execv(program, line)  # noqa: S606
