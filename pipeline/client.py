"""The barrier service's API, as deploy jobs and the command call it. Owns HTTP to it; knows no ZooKeeper.

Several replicas may be named: whichever answers is asked. A call is repeated at the next replica only where it cannot
have been done already, or where doing it twice is the same as once. Every call has a deadline.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from pydantic import ValidationError

from fleet.loop import Trouble
from fleet.model import Plan, Rollout, RolloutState, Wire
from fleet.urls import is_loopback

Verb = Literal["pause", "resume", "abort", "rollback"]
Verdict = Literal["pass", "fail", "undecided"]
#: Rollouts that the service gives at once.
MOST = 200
#: Seconds between two looks at a rollout.
LOOK_SECONDS = 0.25


class BarrierAway(Trouble):
    """No replica of the barrier service gave an answer."""


class BarrierError(Exception):
    """The service said no. ``problem`` is its whole document, the message its sentence."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.status = status
        self.problem = problem


class OutOfTime(Exception):
    """The rollout was not over at the deadline. ``last`` is how it was seen last."""

    def __init__(self, last: RolloutNow) -> None:
        waits = "; ".join(str(m) for m in last.missing) or "nothing it could name"
        super().__init__(
            f"rollout {last.number} of {last.service} to {last.build} is still {last.state.value}, waiting for {waits}"
        )
        self.last = last


class Missing(Wire):
    who: str
    why: str

    def __str__(self) -> str:
        return f"{self.who}: {self.why}"


class RolloutNow(Rollout):
    """A rollout, and who it waits for right now."""

    missing: tuple[Missing, ...] = ()

    @property
    def over(self) -> bool:
        """Nothing more will happen, and nothing that was asked of it is open."""
        return self.done and self.request is None


class Client:
    def __init__(self, urls: Sequence[str], token: str, *, deadline: float = 15.0) -> None:
        if not urls:
            raise ValueError("at least one URL is needed")
        self.urls = tuple(u.rstrip("/") for u in urls)
        self._http = httpx.Client(
            timeout=httpx.Timeout(deadline, connect=3.0),
            headers={"authorization": f"Bearer {token}", "user-agent": "pinrail"},
            trust_env=not all(map(is_loopback, self.urls)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- one call --

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
        repeatable: bool | None = None,
        extra_seconds: float = 0,
    ) -> Any:
        """The answer's JSON. Raises BarrierError where the service said no, BarrierAway where none answered."""
        again = repeatable if repeatable is not None else method in ("GET", "PUT", "DELETE")
        said: list[str] = []
        for i, url in enumerate(self.urls):
            timeout = httpx.Timeout(self._http.timeout.read or 15.0, connect=3.0)
            timeout.read = (timeout.read or 15.0) + extra_seconds
            try:
                answer = self._http.request(method, url + path, json=body, headers=headers, timeout=timeout)
            except (httpx.ConnectError, httpx.ConnectTimeout) as e:
                said.append(f"{url}: {e}")
                continue
            except httpx.HTTPError as e:
                said.append(f"{url}: {type(e).__name__} {e}".rstrip())
                if again:
                    continue
                break
            if answer.status_code == 503 and again and i + 1 < len(self.urls):
                said.append(f"{url}: {_problem(answer).get('detail')}")
                continue
            return _result(answer)
        raise BarrierAway("the barrier service does not answer: " + "; ".join(said))

    # -- services --

    def services(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/v1/services")
        return found

    def service(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/v1/services/{service}")
        return found

    def plan(self, service: str) -> Plan:
        return Plan.model_validate(self.call("GET", f"/v1/services/{service}/plan"))

    def configure(
        self, service: str, config: object, reason: str = "", expected_epoch: int | None = None
    ) -> dict[str, Any]:
        """Write the service's configuration; makes the service where there is none."""
        path = f"/v1/services/{service}/config{_query(reason=reason, expected_epoch=expected_epoch)}"
        found: dict[str, Any] = self.call("PUT", path, body=config)
        return found

    def remove(self, service: str, reason: str = "") -> None:
        self.call("DELETE", f"/v1/services/{service}{_query(reason=reason)}")

    # -- rollouts --

    def deploy(
        self,
        service: str,
        build: str,
        *,
        ramp: Sequence[int] = (),
        hold: float | Literal["hand", "verdict"] | None = None,
        reason: str = "",
        expected_epoch: int | None = None,
        key: str | None = None,
    ) -> RolloutNow:
        """Begin a rollout. ``key`` (made up where it is None) keeps a repeated call from beginning a second one."""
        body: dict[str, Any] = {"build": build, "ramp": list(ramp), "reason": reason}
        if hold is not None:
            body["hold"] = hold
        if expected_epoch is not None:
            body["expected_epoch"] = expected_epoch
        headers = {"idempotency-key": key or uuid.uuid4().hex}
        path = f"/v1/services/{service}/rollouts"
        return RolloutNow.model_validate(self.call("POST", path, body=body, headers=headers, repeatable=True))

    def rollouts(self, service: str, last: int = 50) -> list[RolloutNow]:
        """The last ones, newest first."""
        return [RolloutNow.model_validate(r) for r in self.call("GET", f"/v1/services/{service}/rollouts?last={last}")]

    def rollout(self, service: str, number: int) -> RolloutNow:
        return RolloutNow.model_validate(self.call("GET", f"/v1/services/{service}/rollouts/{number}"))

    def ask(self, service: str, number: int, verb: Verb, reason: str = "") -> RolloutNow:
        """Ask it of the rollout; what comes of it shows in the rollout."""
        path = f"/v1/services/{service}/rollouts/{number}/{verb}"
        return RolloutNow.model_validate(
            self.call("POST", path, body={"reason": reason}, headers=_once(), repeatable=True)
        )

    def verdict(
        self, service: str, number: int, verdict: Verdict, reason: str = "", percent: int | None = None
    ) -> RolloutNow:
        """On the ramp's present step; ``percent``: only if that is still the one."""
        body = {"verdict": verdict, "reason": reason} | ({} if percent is None else {"percent": percent})
        path = f"/v1/services/{service}/rollouts/{number}/verdict"
        return RolloutNow.model_validate(self.call("POST", path, body=body, headers=_once(), repeatable=True))

    def wait_rollout(
        self,
        service: str,
        number: int,
        *,
        seconds: float,
        on: Callable[[RolloutNow], None] | None = None,
        until: Callable[[RolloutNow], bool] = lambda now: now.over,
    ) -> RolloutNow:
        """Look until ``until`` (default: it is over) and return what was seen; ``on`` gets each look that differs.

        Bears with a service that is away for a while. Raises OutOfTime after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        last: RolloutNow | None = None
        while True:
            try:
                now = self.rollout(service, number)
            except (BarrierAway, BarrierError) as e:
                if (isinstance(e, BarrierError) and e.status < 500) or time.monotonic() >= deadline:
                    raise
                time.sleep(LOOK_SECONDS)
                continue
            if on is not None and now != last:
                on(now)
            last = now
            if until(now):
                return now
            if time.monotonic() >= deadline:
                raise OutOfTime(now)
            time.sleep(LOOK_SECONDS)

    def latest(self, service: str) -> RolloutNow | None:
        """The active one where there is one, else the last; what waits in the queue is asked for by its number."""
        if (active := self.service(service)["rollout"]) is not None:
            return self.rollout(service, active["number"])
        found = self.rollouts(service, 1)
        return self.rollout(service, found[0].number) if found else None

    def to_roll_back(self, service: str) -> RolloutNow | None:
        """The rollout that a rollback of the service is about: the active one, else the one that made the default."""
        seen = self.service(service)
        if seen["rollout"] is not None:
            return RolloutNow.model_validate(seen["rollout"])
        default = seen["plan"]["default"]
        for last in (10, MOST):  # seldom is it not one of the last few
            recent = self.rollouts(service, last)
            for rollout in recent:
                if rollout.state is RolloutState.SWITCHED and rollout.build == default:
                    return rollout
        return None

    def barrier(self, service: str, barrier: str, *, wait: float = 0) -> dict[str, Any]:
        """``{met, missing}`` of e.g. ``applied-19``; waits at the service for up to ``wait`` seconds."""
        path = f"/v1/services/{service}/barriers/{barrier}?wait={wait:g}"
        found: dict[str, Any] = self.call("GET", path, extra_seconds=wait)
        return found

    # -- previews --

    def previews(self, service: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/v1/services/{service}/previews")
        return found

    def preview(self, service: str, build: str, seconds: float, reason: str = "") -> dict[str, Any]:
        """A new token for that version."""
        path, body = f"/v1/services/{service}/previews", {"build": build, "seconds": seconds, "reason": reason}
        found: dict[str, Any] = self.call("POST", path, body=body, headers=_once(), repeatable=True)
        return found

    def revoke_preview(self, service: str, preview: str, reason: str = "") -> None:
        path = f"/v1/services/{service}/previews/{preview}{_query(reason=reason)}"
        self.call("DELETE", path, headers=_once())

    # -- the fleet --

    def edges(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/v1/edges")
        return found

    def hosts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/v1/hosts")
        return found

    def evict(self, edge: str, reason: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call(
            "POST", f"/v1/edges/{edge}/evict", body={"reason": reason}, headers=_once(), repeatable=True
        )
        return found

    def leave(self, edge: str, reason: str = "") -> dict[str, Any]:
        """Its health page turns red. Evict it when no request reaches it any more."""
        path, body = f"/v1/edges/{edge}/leave", {"reason": reason}
        found: dict[str, Any] = self.call("POST", path, body=body, headers=_once(), repeatable=True)
        return found

    def take_back(self, edge: str, reason: str = "") -> dict[str, Any]:
        path, body = f"/v1/edges/{edge}/return", {"reason": reason}
        found: dict[str, Any] = self.call("POST", path, body=body, headers=_once(), repeatable=True)
        return found

    def audit(self, service: str | None = None, last: int = 50) -> list[dict[str, Any]]:
        """The last changes, newest first."""
        found: list[dict[str, Any]] = self.call("GET", f"/v1/audit{_query(service=service, last=last)}")
        return found

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "/readyz")
        return found


def _once() -> dict[str, str]:
    """What makes a call that changes something one that may be repeated at another replica."""
    return {"idempotency-key": uuid.uuid4().hex}


def _query(**wanted: str | int | None) -> str:
    """A query string of what is there."""
    there = {k: v for k, v in wanted.items() if v not in (None, "")}
    return f"?{httpx.QueryParams(there)}" if there else ""


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"detail": f"HTTP {answer.status_code} from {answer.url}: {answer.text[:200]}"}


def _result(answer: httpx.Response) -> Any:
    if answer.status_code >= 400:
        raise BarrierError(answer.status_code, _problem(answer))
    if answer.status_code == 204:
        return None
    try:
        return answer.json()
    except (ValueError, ValidationError) as e:
        raise BarrierAway(f"{answer.url} answers {answer.status_code} with what is not JSON") from e
