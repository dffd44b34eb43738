"""What an edge with nginx would load, without an edge. Runs nginx's own test in a directory of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import nginx
from edge.config import EdgeConfig, NginxConfig
from edge.nginx import render, server
from edge.nginx.render import Place
from edge.offline import Given, Invalid
from edge.render import Route

#: As on an edge with the default configuration, whatever machine this is; where answers are checked differs.
_PLACE = Place(
    directory="/var/lib/pinrail/edge/nginx",
    listen="0.0.0.0:80",
    admin="127.0.0.1:6082",
    workers=1,
    files=65536,
    drain_seconds=NginxConfig().drain_seconds,
    user=NginxConfig().user,
    module="/usr/lib/nginx/modules/ngx_http_js_module.so",
)


def texts(given: Sequence[Given], place: Place = _PLACE) -> dict[str, str]:
    """File name -> text, every host taken for healthy. Raises Invalid for what nginx cannot express."""
    try:
        parts = [render.part(g.service, g.config, g.plan, g.sets, place) for g in given]
    except nginx.Unprintable as e:
        raise Invalid(str(e)) from e
    configuration = render.configuration(parts, [Route(g.service, g.config.match) for g in given], place)
    return {"nginx.conf": configuration.text, "edge.js": nginx.script()}


def test(given: Sequence[Given]) -> str | None:
    """None where nginx accepts it, else what it says."""
    with tempfile.TemporaryDirectory(prefix="pinrail-check-") as made:
        door = f"unix:{made}/door"
        own = NginxConfig(listen=door, admin=door, user="root")
        config = EdgeConfig(name="check", engine="nginx", zookeeper="none", directory=Path(made), nginx=own)
        server.prepare(config)
        found = texts(given, server.place(config))
        server.config_file(config).write_text(found["nginx.conf"])
        return server.test(config, server.config_file(config))
