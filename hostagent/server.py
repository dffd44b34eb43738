"""``pinrail host server``: becomes this host's supervisord, which runs all pools and outlives the agent.

Owns ``supervisord.conf``. supervisord listens on a unix socket that only its own user may use, and on nothing else;
what it runs it finds in ``conf.d``, so that after a reboot or a crash it brings back what ran.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from fleet.config import BadConfig
from fleet.files import write_atomic
from hostagent.config import HostConfig
from hostagent.layout import Layout
from hostagent.supervisor import LOG_BYTES, Supervisor, SupervisorGone


def prepare(config: HostConfig) -> list[str]:
    """Make the directories and ``supervisord.conf``; the argv that runs it in the foreground."""
    layout = Layout.of(config)
    for directory in (layout.conf_d, layout.logs, layout.run):
        directory.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.supervisord_conf, text(layout), mode=0o600)
    return [sys.executable, "-P", "-m", "fleet.supervisord_main", "-n", "-c", str(layout.supervisord_conf)]


def text(layout: Layout) -> str:
    root = "user=root\n" if os.geteuid() == 0 else ""
    return (
        "[supervisord]\n"
        f"nodaemon=true\n{root}"
        f"directory={layout.directory}\n"
        f"logfile={layout.logs / 'supervisord.log'}\nlogfile_maxbytes={LOG_BYTES}\nlogfile_backups=1\n"
        f"pidfile={layout.run / 'supervisord.pid'}\nchildlogdir={layout.logs}\n"
        "umask=022\nminfds=4096\n\n"
        f"[unix_http_server]\nfile={layout.supervisor_socket}\nchmod=0700\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
        f"[include]\nfiles={layout.conf_d}/*.conf\n"
    )


def serve(config: HostConfig) -> NoReturn:
    argv = prepare(config)
    supervisor = Supervisor(Layout.of(config).supervisor_socket)
    try:
        pid = supervisor.pid()
    except SupervisorGone:
        os.execv(argv[0], argv)  # noqa: S606  # no shell is the point
    raise BadConfig(f"this host's server runs already, as process {pid}: end that one first, and its pools with it")
