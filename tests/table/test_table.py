"""Thousands of requests: the reference and a real edge must answer alike, header for header and count for count."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.table import generate, reference
from tests.table.cases import SERVICES
from tests.table.reference import DRAWN, Answer
from tests.table.request import Request
from tests.table.varnish import Bed, Observed, refuses, varnish
from tests.table.wire import Response

COUNT = 4000
SEED = 1 if os.environ.get("CI") else random.SystemRandom().randrange(10**6)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with varnish(tmp_path_factory.mktemp("table")) as made:
        yield made


def expected(request: Request, got: Response) -> list[Answer]:
    """What may come back. More than one only where chance decides and the answer does not tell how it did."""
    if refuses(request):
        return [Answer(400)]
    service = reference.belongs(request, SERVICES)
    stamp = got.first("x-deployment-id")
    if service is None or service.plan.mode == "mixed":
        return [reference.answer(request, SERVICES, 0, stamp if service and stamp in service.plan.serving else None)]
    drawn = [0, reference.BUCKETS - 1]
    if cookie := reference.parsed(_cookie(service, got)):
        drawn = [cookie.bucket]
    return list(dict.fromkeys(reference.answer(request, SERVICES, d) for d in drawn))


def _cookie(service: reference.Service, got: Response) -> str | None:
    start = f"{service.config.pin.cookie}="
    return next((c[len(start) :].partition(";")[0] for c in got.all("set-cookie") if c.startswith(start)), None)


def faults(request: Request, answer: Answer, seen: Observed) -> list[str]:
    """What is not as ``answer`` says, one line each."""
    got, service = seen.response, reference.belongs(request, SERVICES)
    if answer.record is None or service is None:
        return _differ({"status": (answer.status, got.status), "records": ((), seen.records)})
    pin = service.config.pin
    cookie = answer.cookie
    wanted = None if cookie is None else f"{pin.cookie}={cookie}; Path=/; SameSite=Lax"
    said = next(iter(got.all("set-cookie")), None)
    if wanted and said and DRAWN in wanted:
        drawn = reference.parsed(_cookie(service, got))
        wanted = wanted.replace(DRAWN, drawn.words[2] if drawn else "0-9999")
    compared: dict[str, tuple[object, object]] = {
        "status": (answer.status, got.status),
        "x-deployment-id": (answer.version, got.first("x-deployment-id")),
        "x-deployment-status": (answer.verdict, got.first("x-deployment-status")),
        "Set-Cookie": ([wanted] if wanted else [], got.all("set-cookie")),
        "Vary": ([pin.header] if answer.vary else [], got.all("vary")),
        "records": ((answer.record.text(service.name),), seen.records),
        "internal headers": ([], [k for k, _ in got.headers if k.lower().startswith(("x-pinrail", "x-served"))]),
    }
    if wrong := _differ(compared):
        return wrong
    if answer.build and request.method != "HEAD":
        return _differ(_at_the_host(request, answer, pin.cookie, json.loads(got.body)))
    return []


def _at_the_host(
    request: Request, answer: Answer, cookie: str, said: dict[str, object]
) -> dict[str, tuple[object, object]]:
    if "/cached/" in request.target and not answer.vary:
        return {}  # an asset is one for all versions, whoever was asked first
    compared: dict[str, tuple[object, object]] = {"the body's build": (answer.build, said["build"])}
    if "/cached/" not in request.target:
        headers = [(str(k), str(v)) for k, v in said["headers"]]  # type: ignore[attr-defined]
        crumbs = [c.strip() for k, v in headers if k == "cookie" for c in v.split(";")]
        length = [v for k, v in headers if k == "content-length"]
        wanted = [] if request.method in reference.SAFE else [str(len(request.body))]
        compared["the body's length at the host"] = (wanted, length)
        compared["the pin's cookie at the host"] = ([], [c for c in crumbs if c.startswith(f"{cookie}=")])
    return compared


def _differ(compared: dict[str, tuple[object, object]]) -> list[str]:
    return [f"{what}: expected {want!r}, got {got!r}" for what, (want, got) in compared.items() if want != got]


def verdict(request: Request, seen: Observed) -> list[str]:
    """Nothing where one of the answers that may come back did; else what is wrong with the nearest."""
    return min((faults(request, a, seen) for a in expected(request, seen.response)), key=len)


def shrunk(bed: Bed, request: Request) -> Request:
    """The smallest request found that still goes wrong."""
    for _ in range(60):
        candidates = list(generate.simpler(request))
        bad = (c for c, seen in zip(candidates, bed.observe(candidates), strict=True) if verdict(c, seen))
        smaller = next(bad, None)
        if smaller is None:
            break
        request = smaller
    return request


def told(bed: Bed, request: Request) -> str:
    small = shrunk(bed, request)
    (seen,) = bed.observe([small])
    got = seen.response
    lines = [f"{small.raw()!r}", *(f"    {line}" for line in verdict(small, seen))]
    return "\n".join([*lines, f"    answer: {got.status} {dict(got.headers)} {list(seen.records)}"])


def test_the_requests_reach_every_row_of_the_table() -> None:
    requests = generate.Generator(random.Random(1), SERVICES).requests(COUNT)
    answers = [reference.answer(r, SERVICES, 0, "A") for r in requests]
    assert {a.status for a in answers} >= {200, 400, 404, 405, 409, 410, 413, 500, 503}
    rows = Counter((a.record.outcome, a.record.cause) for a in answers if a.record)
    plain = [("default", "-"), ("ramp", "-"), ("preview", "-"), ("none", "-"), ("error", "-"), ("exact", "-")]
    odd = [("exact", "newer"), ("back", "generation"), ("fault", "mixed")]
    forced = [("forced", cause) for cause in ("retired", "unknown", "gone")]
    assert [row for row in (*plain, *odd, *forced) if rows[row] < 2] == []


def test_the_edge_answers_as_the_table_says(bed: Bed) -> None:
    requests = list(generate.Generator(random.Random(SEED), SERVICES).requests(COUNT))
    wrong = [r for r, seen in zip(requests, bed.observe(requests), strict=True) if verdict(r, seen)]
    if wrong:
        shown = "\n\n".join(dict.fromkeys(told(bed, r) for r in wrong[:6]))
        pytest.fail(f"{len(wrong)} of {COUNT} requests went wrong (seed {SEED}), such as\n{shown}", pytrace=False)
