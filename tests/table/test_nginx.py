"""The same requests and the same table for the nginx engine; what it documents to do otherwise is left out."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.table import generate, reference
from tests.table.nginx import EXPRESSED, Bed, nginx
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
        seen.response.status == 400
        or odd
        or empty
        or (pin and request.all(pin)[:1] == ("",))
        or (request.method in ("GET", "HEAD") and request.body)
        or fails
    )


def test_nginx_answers_as_the_table_says(bed: Bed) -> None:
    made = generate.Generator(random.Random(SEED), EXPRESSED).requests(COUNT // 2)
    # What only Varnish refuses is left to it.
    requests = [r for r in made if not any("cookie" in o.lower() or "host" in o.lower() for o in r.all("Connection"))]
    pairs = [(r, s) for r, s in zip(requests, bed.observe(requests), strict=True) if not documented(r, s)]
    assert len(pairs) > COUNT // 10, "hardly any was compared"
    wrong = [(r, s) for r, s in pairs if verdict(r, s)]
    if wrong:
        shown = "\n\n".join(
            f"{r.raw()[:600]!r}\n    {verdict(r, s)}\n    {s.response.status} {dict(s.response.headers)} {s.records}"
            for r, s in wrong[:6]
        )
        pytest.fail(f"{len(wrong)} of {len(pairs)} requests went wrong (seed {SEED}), such as\n{shown}", pytrace=False)
