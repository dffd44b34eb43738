"""Each ``NN_topic.vtc`` run by Varnish's own test program on the *rendered production* templates.

A file begins with comments that say what to render: ``# plan: {...}``, ``# config: {...}``, ``# hosts: {"B": ["s1"]}``;
``@VCL@`` is the service's VCL and ``@ROOT@`` a root over it. More plans: ``# plan2: ...`` gives ``@VCL2@``, of the same
service unless ``# service2: "other"`` and ``# config2: {...}`` say otherwise. ``@LONG@`` is 6000 letters.
``NN_topic.own.vcl`` beside it is the operator's own VCL.
Probes are left out, as a scripted server answers exactly the requests it expects, but for ``# probes: "new"``, and
``"known"``: as the VCL is where its hosts serve already.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge import render, server
from edge.members import Host
from fleet.model import Plan, ServiceConfig

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.vtc"))


def _header(text: str, key: str) -> Any:
    found = re.search(rf"^# {key}: (.*)$", text, re.MULTILINE)
    return json.loads(found.group(1)) if found else None


def rendered(text: str, own: str = "") -> str:
    """The script with its placeholders filled in."""
    hosts = _header(text, "hosts") or {}
    servers = {s: Host("192.0.2.1", 10000 + n) for n, s in enumerate(sorted({s for ss in hosts.values() for s in ss}))}
    routes: dict[str, render.Route] = {}
    for number in ("", "2"):
        plan = _header(text, f"plan{number}")
        if plan is None:
            continue
        service = _header(text, f"service{number}") or "app"
        config = ServiceConfig.model_validate(_header(text, f"config{number}") or _header(text, "config") or {})
        routes.setdefault(service, render.Route(service, config.match))
        sets = {v: tuple(servers[s] for s in names) for v, names in hosts.items()}
        made = render.service(service, config, Plan.model_validate(plan), sets, own)
        probes = _header(text, "probes")
        vcl = render.knowing(made, list(made.backends)) if probes == "known" else made.text
        if probes is None:
            vcl = re.sub(r"^probe pr_health \{.*?^\}\n", "", vcl, flags=re.MULTILINE | re.DOTALL)
            vcl = vcl.replace("    .probe = pr_health;\n", "")
        for name, host in servers.items():
            vcl = vcl.replace(
                f'.host = "192.0.2.1";\n    .port = "{host.port}"',
                f'.host = "${{{name}_addr}}";\n    .port = "${{{name}_port}}"',
            )
        text = text.replace(f"@VCL{number}@", vcl)
    return text.replace("@ROOT@", render.root(list(routes.values()), None).text).replace("@LONG@", "a" * 6000)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_vtc(file: Path, tmp_path: Path) -> None:
    script = tmp_path / file.name
    own = file.with_suffix(".own.vcl")
    script.write_text(rendered(file.read_text(), own.read_text() if own.exists() else ""))
    parameters = ["-p", "debug=+vclrel"]
    if server.tcc_is_here():
        parameters += ["-p", f"cc_command='{server.TCC}'"]
    result = subprocess.run(
        ["varnishtest", "-t", "50", "-b", "4M", *parameters, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(tmp_path)},
    )
    if result.returncode:
        telling = re.compile(r"^----|^ +\^|c\d+ +http\[|EXPECT|VCL_Log|VCL_Error|FetchError|Message|CLI RX\|")
        lines = [line for line in result.stdout.splitlines() if telling.search(line)]
        pytest.fail(f"{file.name}\n" + "\n".join(lines[-60:]), pytrace=False)
