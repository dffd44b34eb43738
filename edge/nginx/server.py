"""nginx, started from the last good configuration. ``prepare`` writes what it needs, ``run`` becomes it.

Its health page is red until an agent has applied the latest plan: the file that makes it green is removed before each
start.
"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import NoReturn

import nginx
from edge.config import EdgeConfig
from edge.nginx import orphans, render
from edge.nginx.render import Place
from fleet import proc
from fleet.config import BadConfig
from fleet.files import read_or_none, write_atomic

NOT_YET = "no plan has been applied since this edge was started"
GREEN, RED = "green", "red"
#: An ordinary user's PATH may lack these.
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/nginx/modules", "/etc/nginx/modules")
NJS = "ngx_http_js_module.so"
_FILES = 65536


def program(config: EdgeConfig) -> str:
    """nginx itself. Raises BadConfig where there is none."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), *_SBIN]
    found = shutil.which(config.nginx.program, path=os.pathsep.join(places))
    if found is None:
        raise BadConfig(f"nginx.program = {config.nginx.program!r} is not installed: apt-get install nginx")
    return found


def directory(config: EdgeConfig) -> Path:
    return (config.directory / "nginx").absolute()


def config_file(config: EdgeConfig) -> Path:
    return directory(config) / "nginx.conf"


def last_good_file(config: EdgeConfig) -> Path:
    return directory(config) / "lastgood.conf"


def place(config: EdgeConfig) -> Place:
    """Raises BadConfig where njs is needed and not installed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = config.nginx
    return Place(
        directory=str(directory(config)),
        listen=n.listen,
        admin=n.admin,
        workers=n.workers or len(os.sched_getaffinity(0)),
        files=_FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard),
        drain_seconds=n.drain_seconds,
        user=n.user if os.geteuid() == 0 else None,
        module=_njs() if n.attest == "answers" else None,
    )


def _njs() -> str:
    found = next((path for d in MODULES if (path := Path(d) / NJS).exists()), None)
    if found is None:
        raise BadConfig(
            "nginx.attest = 'answers' needs njs: apt-get install libnginx-mod-http-js; or set it to 'hosts' where every"
            " host is Pinrail's"
        )
    return str(found)


def prepare(config: EdgeConfig) -> None:
    """Directories, the check of answers and, where there is none yet, a first configuration. Idempotent."""
    at = directory(config)
    try:
        for made in (at, at / "flags", at / "temp"):
            made.mkdir(parents=True, exist_ok=True)
        write_atomic(at / "edge.js", nginx.script())
        if read_or_none(at / "flags" / RED) is None:
            write_atomic(at / "flags" / RED, NOT_YET + "\n")
        if read_or_none(config_file(config)) is None:
            write_atomic(config_file(config), render.configuration((), (), place(config)).text)
    except OSError as e:
        raise BadConfig(f"directory = {config.directory}: {e.strerror}") from e
    except nginx.Unprintable as e:
        raise BadConfig(f"directory = {config.directory}: {e}") from e


def argv(config: EdgeConfig, file: Path) -> list[str]:
    return [program(config), "-p", f"{directory(config)}/", "-c", str(file), "-e", "stderr"]


def test(config: EdgeConfig, file: Path) -> str | None:
    """None where nginx accepts ``file``, else what it says."""
    result = proc.run([*argv(config, file), "-t", "-q"], deadline=30)
    return None if result.code == 0 else (result.output.strip() or f"exit {result.code}")


def run(config: EdgeConfig) -> NoReturn:
    """Become nginx. Raises BadConfig where it cannot start."""
    prepare(config)
    at = directory(config)
    (at / "flags" / GREEN).unlink(missing_ok=True)
    write_atomic(at / "flags" / RED, NOT_YET + "\n")
    _believe(config)
    orphans.dismiss(at)
    line = [*argv(config, config_file(config)), "-g", "daemon off;"]
    os.execv(line[0], line)  # noqa: S606


def _believe(config: EdgeConfig) -> None:
    """Begin with what nginx accepts: the configuration of before, else the last good one, else one without services."""
    said = test(config, config_file(config))
    if said is None:
        return
    good = read_or_none(last_good_file(config))
    for text in (good.decode() if good else None, render.configuration((), (), place(config)).text):
        if text is not None:
            write_atomic(config_file(config), text)
            said = test(config, config_file(config))
            if said is None:
                return
    raise BadConfig(f"nginx does not start: {said}")
