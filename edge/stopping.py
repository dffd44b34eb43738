"""Turns an edge's health page red, so that the load balancer goes elsewhere before the server is stopped.

Everything is served as before. The agent must have ended: it would turn the page green again. The next start is red
until an agent has applied the latest plan, as every start is.
"""

from __future__ import annotations

import re
from contextlib import suppress

from edge import server
from edge.config import EdgeConfig
from edge.nginx import server as nginx_server
from edge.varnish import Refused, Varnish, VarnishTrouble
from fleet.files import read_or_none, write_atomic
from fleet.loop import Trouble

STOPPING = "this edge is about to stop"
_USED = re.compile(r"^-?vcl\.use (\S+)$", re.MULTILINE)


def turn_red(config: EdgeConfig) -> None:
    """Raises Trouble where the server does not answer, or the disk takes nothing."""
    try:
        if config.engine == "nginx":
            flags = nginx_server.directory(config) / "flags"
            write_atomic(flags / nginx_server.RED, STOPPING + "\n")
            (flags / nginx_server.GREEN).unlink(missing_ok=True)
        else:
            _boot_root(config)
    except OSError as e:
        raise Trouble(f"the health page could not be turned red: {e.strerror}") from e


def _boot_root(config: EdgeConfig) -> None:
    """What varnishd would boot into next is red, and routes as now."""
    used = _USED.findall((read_or_none(server.boot_file(config)) or b"").decode())
    if not used:
        return
    text = (config.directory / "vcl" / f"{used[-1]}.vcl").read_text()
    varnish = Varnish(config.varnish.admin, server.secret_file(config))
    try:
        with suppress(Refused):  # it is loaded already
            varnish.load(used[-1], text)
        varnish.use(used[-1])
    except Refused as e:
        raise VarnishTrouble(f"varnishd refused its boot root: {e}") from e
    finally:
        varnish.close()
