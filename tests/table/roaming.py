"""A fleet on paper: edges that apply plans at different instants, and clients that roam across them.

Every request is decided by the reference of the request table, every plan made by the barrier's own operations, in the
order in which a rollout makes them. ``Broken`` is a promise that did not hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from barrier import plans
from fleet.model import Plan, ServiceConfig
from tests.table import reference
from tests.table.reference import BUCKETS, DRAWN, Answer, Service
from tests.table.request import Request

CONFIG = ServiceConfig()
DOCUMENT = ("Sec-Fetch-Dest", " document")
HOST = ("Host", " app.example")


class Broken(AssertionError):
    """A promise to a client was broken; the message says which."""


@dataclass(frozen=True)
class Step:
    """``plan`` is written. ``begins``: a rollout begins with it, and may move each client once more.
    ``waits``: the next plan is written when every edge has applied this one."""

    plan: Plan
    begins: bool = False
    waits: bool = True


@dataclass
class Client:
    """One browser with one page, that reloads when it is told that its version is retired."""

    number: int
    cookie: str | None = None
    page: str | None = None
    generation: int = 0
    moves: int = 0
    #: Epoch of the plan by whose ramp it got the new version.
    ramped: int | None = None
    history: list[str] = field(default_factory=list)


class Fleet:
    def __init__(self, rng: random.Random, edges: int, clients: int) -> None:
        self._rng = rng
        first = Plan(epoch=1, generation=1, default="v1", serving=("v1", "v0"))
        self._latest = first
        self._edges = [first] * edges
        self._clients = [Client(n) for n in range(clients)]
        #: Generation -> the versions that its documents may be.
        self._documents = {1: {"v1"}}

    def run(self, rollouts: int) -> None:
        for n in range(2, 2 + rollouts):
            for step in rollout(self._latest, f"v{n}", self._rng):
                self._write(step)
                while self._lagging() if step.waits else self._rng.random() < 0.7:
                    self._anything()
        for _ in range(20):
            self._anything()

    def _write(self, step: Step) -> None:
        self._latest = plan = step.plan
        documents = self._documents.setdefault(plan.generation, set())
        documents |= {v for v in (plan.default, plan.ramp.version if plan.ramp else None) if v}
        for client in self._clients:
            if step.begins:
                client.moves = 0
            if plan.ramp is None:
                client.ramped = None

    def _lagging(self) -> list[int]:
        return [n for n, plan in enumerate(self._edges) if plan.epoch < self._latest.epoch]

    def _anything(self) -> None:
        """An edge catches up, or a client does something at any edge."""
        if (lagging := self._lagging()) and self._rng.random() < 0.2:
            self._edges[self._rng.choice(lagging)] = self._latest
            return
        client = self._rng.choice(self._clients)
        if client.page is None or self._rng.random() < 0.3:
            self.navigate(client)
        else:
            self.use(client)

    def navigate(self, client: Client) -> None:
        edge = self._rng.choice(self._edges)
        answer = self._ask(edge, client, "/", DOCUMENT)
        record, version = answer.record, answer.version
        assert record is not None and version is not None
        if answer.cookie is not None:
            client.cookie = answer.cookie.replace(DRAWN, str(self._rng.randrange(BUCKETS)))
        cookie = reference.parsed(client.cookie)
        if cookie is None or cookie.version != version:
            raise Broken(self._story(client, "a document's cookie does not say which version it is"))
        if cookie.generation < client.generation or record.outcome == "back":
            raise Broken(self._story(client, "a document went back"))
        if version not in self._documents[cookie.generation]:
            raise Broken(self._story(client, f"{version} was never what generation {cookie.generation} gave"))
        if client.ramped is not None and edge.epoch >= client.ramped and edge.ramp and record.outcome == "default":
            raise Broken(self._story(client, "a ramp lost a client that it had"))
        if record.outcome == "ramp" and client.ramped is None and self._latest.ramp:
            client.ramped = edge.epoch
        client.generation, client.page = cookie.generation, version

    def use(self, client: Client) -> None:
        """What a page does: it asks by header, by parameter, or leaves it to the cookie."""
        assert client.page is not None
        edge = self._rng.choice(self._edges)
        how = self._rng.randrange(3)
        target = f"/app.js?dpl={client.page}" if how == 1 else "/api"
        headers = [("x-deployment-id", f" {client.page}")] if how == 0 else []
        answer = self._ask(edge, client, target, *headers)
        if answer.verdict == "retired":
            client.moves += 1
            if client.moves > 1:
                raise Broken(self._story(client, "moved by force twice in one rollout"))
            self.navigate(client)
        elif answer.version != client.page:
            raise Broken(self._story(client, f"a page of {client.page} was answered by {answer.version}"))

    def _ask(self, edge: Plan, client: Client, target: str, *headers: tuple[str, str]) -> Answer:
        cookie = [("Cookie", f" __dpl={client.cookie}")] if client.cookie else []
        service = Service("app", CONFIG, edge, frozenset(edge.serving))
        request = Request("GET", target, headers=(HOST, *headers, *cookie))
        # Which bucket a new client draws is not known before the cookie is: none that a ramp would take.
        answer = reference.answer(request, [service], BUCKETS - 1)
        assert answer.record is not None
        edge_says = f"epoch {edge.epoch} generation {edge.generation} default {edge.default} ramp {edge.ramp}"
        client.history.append(f"{target} {client.cookie} -> {answer.record.text('app')} at {edge_says}")
        return answer

    def _story(self, client: Client, what: str) -> str:
        return "\n".join((f"client {client.number}: {what}", *client.history[-12:]))


def rollout(plan: Plan, build: str, rng: random.Random) -> Iterator[Step]:
    """The plans of one rollout: to its end, or aborted somewhere on the way, or rolled back."""
    before = plan.serving
    plan = plans.withdraw(plan, [v for v in plan.serving if v != plan.default])
    yield Step(plan, begins=True)
    if rng.random() < 0.1:
        yield Step(plans.restore(plan, before))
        return
    plan = plans.offer(plan, build)
    yield Step(plan)
    for percent in rng.choice(((), (1, 10), (5, 50, 100), (30,))):
        plan = plans.ramp(plan, build, percent)
        gives_up = rng.random() < 0.2
        yield Step(plan, waits=not gives_up)
        if gives_up:
            yield from abort(plan, build)
            return
    plan = plans.commit(plan)
    back = rng.random() < 0.3
    yield Step(plan, waits=not back)
    if back:
        yield Step(plans.commit(plan))


def abort(plan: Plan, build: str) -> Iterator[Step]:
    """Nobody new gets it; who has it keeps it."""
    yield Step(plans.ramp(plan, build, None))
