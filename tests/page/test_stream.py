"""The page's data over plain HTTP: who gets it, what the stream says, what the static files forbid."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from barrier import auth, routes_overview
from tests.barrier.http import TOKENS
from tests.conftest import eventually
from tests.page.conftest import Site


def headers(role: str = "read", **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[role]}"} | {k.replace("_", "-"): v for k, v in more.items()}


Event = tuple[str, Any, str]


@contextmanager
def stream(site: Site, service: str | None = "shop", **more: str) -> Iterator[Iterator[Event]]:
    """(event, data, id) as they come."""
    query = f"?service={service}" if service else ""
    with httpx.stream("GET", f"{site.url}/v1/overview/events{query}", headers=headers(**more), timeout=20) as answer:
        assert answer.status_code == 200, answer.read()

        def events() -> Iterator[Event]:
            found: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    key, _, value = line.partition(": ")
                    found[key] = value
                elif "data" in found:
                    yield found.get("event", ""), json.loads(found["data"]), found.get("id", "")
                    found = {}

        yield events()


def until(events: Iterator[Event], name: str) -> Event:
    return next(e for e in events if e[0] == name)


def test_the_stream_brings_everything_and_then_what_changes(small: Site) -> None:
    with stream(small) as events:
        lines, service = until(events, "services"), until(events, "service")
        assert [line["service"] for line in lines[1]] == ["shop"]
        assert service[1]["plan"]["default"] == "A"
        number = small.fleet.begin("B").number
        states = set()
        for name, value, _ in events:
            if name == "service" and value["rollout"]["number"] == number:
                states.add(value["rollout"]["state"])
                if value["rollout"]["done"]:
                    break
        assert "switched" in states
        last = until(events, "flips")
    with stream(small, last_event_id=last[2]) as events:  # whoever comes back is not told again
        kinds = [next(events) for _ in range(3)]
        assert {name for name, _, _ in kinds} <= {"flips", "live"}
        flips = [value for name, value, _ in kinds if name == "flips"]
        assert all(len(value["rounds"]) < 10 for value in flips)
    with stream(small, last_event_id="nonsense") as events:
        assert next(events)[0] == "services"


def test_a_token_sees_its_own_services_only_and_for_as_long_as_it_is_good(small: Site) -> None:
    entry = '[[token]]\nname = "other"\nrole = "read"\nservices = ["elsewhere"]\nsha256 = "{}"\n'
    with small.tokens.open("a") as file:
        file.write("\n" + entry.format(auth.digest("narrow")))
    narrow = {"authorization": "Bearer narrow"}
    get = httpx.Client(base_url=small.url, timeout=20)
    with get:
        assert get.get("/v1/whoami").status_code == 401
        assert get.get("/v1/whoami", headers=narrow).json() == {
            "name": "other",
            "role": "read",
            "services": ["elsewhere"],
        }
        assert get.get("/v1/overview", headers=narrow).json() == []
        for path in ("services/shop/overview", "services/shop/flips", "services/shop/builds"):
            assert get.get(f"/v1/{path}", headers=narrow).status_code == 403
            assert get.get(f"/v1/{path}").status_code == 401
            assert get.get(f"/v1/{path}", headers=headers()).status_code == 200
        assert get.get("/v1/overview/events?service=shop", headers=narrow).status_code == 403
        assert get.get("/v1/services/nope/flips", headers=headers()).status_code == 404
    with stream(small) as events:
        until(events, "service")
        small.tokens.write_text("")
        assert until(events, "refused")[1] == {"detail": "the token is not known here"}


def test_a_service_that_is_removed_or_unknown_ends_the_stream(small: Site) -> None:
    with stream(small, "nope") as events:
        assert "there is no service 'nope'" in until(events, "refused")[1]["detail"]
    with stream(small, None) as events:
        assert until(events, "services")[1][0]["default"] == "A"


def test_streams_are_bounded_and_end_when_the_service_does(small: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_overview, "MOST_STREAMS", 1)
    ended = threading.Event()
    with stream(small) as events:
        until(events, "service")
        full = httpx.get(f"{small.url}/v1/overview/events", headers=headers(), timeout=20)
        assert (full.status_code, full.headers["retry-after"]) == (503, "10")
        threading.Thread(target=lambda: (list(events), ended.set()), daemon=True).start()
        small.stop()
        eventually("the stream to end by itself", ended.is_set)
    small.start()


def test_the_files_forbid_what_the_page_does_not_need(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=20) as get:
        eventually("the service", lambda: get.get("/healthz").status_code == 200)
        page = get.get("/")
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
        for part in ("default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
            assert part in policy
        assert (page.headers["x-frame-options"], page.headers["referrer-policy"]) == ("DENY", "no-referrer")
        assert "set-cookie" not in page.headers
        again = get.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert get.get("/ui/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
        assert get.get("/ui/main.js").headers["content-security-policy"] == policy
        for path in ("/ui/nope.js", "/ui/__init__.py", "/ui/..%2f__init__.py", "/ui/%2e%2e/api.py"):
            assert get.get(path).status_code == 404
