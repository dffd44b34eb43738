"""The same requests and the same table for the nginx engine; what it documents to do otherwise is left out."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote_to_bytes

import pytest

from tests.table import generate, reference
from tests.table.nginx import EXPRESSED, Bed, nginx
from tests.table.reference import METHODS
from tests.table.request import Request
from tests.table.test_table import COUNT, SEED, verdict
from tests.table.varnish import Observed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with nginx(tmp_path_factory.mktemp("nginx-table")) as made:
        yield made


def documented(request: Request, seen: Observed) -> bool:
    """Is this request one of those that docs/edge.md says nginx answers otherwise?"""
    service = reference.belongs(request, EXPRESSED)
    pin = service.config.pin.header if service else ""
    empty = [
        k for k in ("Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "X-Requested-With") if request.first(k) == ""
    ]
    odd = request.method != request.method.upper() or request.method in ("TRACE", "CONNECT")
    fails = service is not None and seen.response.status == 503 and request.target.startswith(service.config.immutable)
    return bool(
        odd
        or empty
        or (pin and request.all(pin)[:1] == ("",))
        or (request.method in ("GET", "HEAD") and request.body)
        or fails
    )


def refuses(request: Request) -> bool:
    """Does nginx itself take this for no request, beside what any server refuses? As docs/edge.md says."""
    path = unquote_to_bytes(request.target.partition("?")[0].partition("#")[0])
    depth = 0
    for part in re.split(rb"/+", path)[1:]:
        depth += -1 if part == b".." else 0 if part in (b"", b".") else 1
        if depth < 0:
            return True
    hosts = [v for k, v in request.headers if k.lower() == "host"]
    return bool(
        b"\0" in path
        or any("\t" in h or ".." in h for h in (*hosts, request.authority))
        or request.method != request.method.upper()
        or len(hosts) > 1
        or (request.target != request.written and re.search(r":[^:\]]*[^0-9:\]][^:\]]*$", request.authority))
        or (request.protocol == "HTTP/1.1" and not hosts)
    )


def tidied(request: Request) -> Request:
    """Without what nginx would refuse it for at once, so that there is more to compare."""
    target = request.written.replace("/..%2f", "/%2e%2f")
    return replace(
        request,
        written=target,
        headers=tuple((k, v.replace("\t", " ") if k.lower() == "host" else v) for k, v in request.headers),
    )


def test_nginx_answers_as_the_table_says(bed: Bed) -> None:
    made = generate.Generator(random.Random(SEED), EXPRESSED).requests(COUNT // 2)
    made = [tidied(r) if n % 4 else r for n, r in enumerate(made)]
    # What only Varnish refuses is left to it.
    requests = [r for r in made if not any("cookie" in o.lower() or "host" in o.lower() for o in r.all("Connection"))]
    seen = list(zip(requests, bed.observe(requests), strict=True))
    pairs = [(r, s) for r, s in seen if s.response.status != 400 and not documented(r, s)]
    assert len(pairs) > len(requests) * 0.6, "hardly any was compared"
    for r, s in seen:
        refused = reference.spoken(r) == 400 or refuses(r)
        assert (s.response.status == 400) == refused or r.method not in METHODS, (s.response.status, r.raw()[:600])
    wrong = [(r, s) for r, s in pairs if verdict(r, s)]
    if wrong:
        shown = "\n\n".join(
            f"{r.raw()[:600]!r}\n    {verdict(r, s)}\n    {s.response.status} {dict(s.response.headers)} {s.records}"
            for r, s in wrong[:6]
        )
        pytest.fail(f"{len(wrong)} of {len(pairs)} requests went wrong (seed {SEED}), such as\n{shown}", pytrace=False)
