"""The barrier service's metrics; the only owner of their names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from barrier.predicates import Missing
from fleet.model import Plan, Rollout, RolloutState

# When each histogram was made is one more series for each of them, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
#: The barrier that is waited for in a state.
_KINDS = {
    RolloutState.WITHDRAWING: "drained",
    RolloutState.OFFERING: "staged",
    RolloutState.SWITCHED: "applied",
    RolloutState.ROLLING_BACK: "applied",
}
#: Of a call whose token is not good enough.
_REFUSALS = (401, 403)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._state = Gauge(
            "pinrail_rollout_state",
            "1 for the state of the rollout's state.",
            ["service", "state"],
            registry=self.registry,
        )
        self._began = Gauge(
            "pinrail_rollout_step_timestamp_seconds",
            "Unix time of the last event in a step of the rollout that is active or was last.",
            ["service", "rollout", "build", "step"],
            registry=self.registry,
        )
        self._epoch = Gauge(
            "pinrail_plan_epoch",
            "Epoch of the plan: what every edge should use.",
            ["service"],
            registry=self.registry,
        )
        self._versions = Gauge(
            "pinrail_plan_version_info",
            "1 for each version that the plan serves: the default, the one that a ramp moves to, or another.",
            ["service", "version", "role"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "pinrail_rollout_seconds",
            "Seconds that rollouts spent in a step.",
            ["service", "step"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._wait = Histogram(
            "pinrail_barrier_wait_seconds",
            "Seconds until a barrier was met.",
            ["service", "kind"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._missing = Gauge(
            "pinrail_barrier_missing",
            "1 while a barrier waits for that edge or host.",
            ["service", "edge"],
            registry=self.registry,
        )
        self._leading = Gauge("pinrail_barrier_leading", "1 on the replica that drives.", registry=self.registry)
        self._refused = Counter(
            "pinrail_barrier_refused_total",
            "Calls that would have changed something and were refused: 401 no or unknown token, 403 not with that one.",
            ["status"],
            registry=self.registry,
        )
        for status in _REFUSALS:
            self._refused.labels(str(status))
        self._named: dict[str, frozenset[str]] = {}
        self._timed: dict[str, tuple[str, str, str]] = {}
        self._planned: dict[str, frozenset[tuple[str, str, str]]] = {}

    def leading(self, yes: bool) -> None:
        self._leading.set(int(yes))

    def rollout(self, rollout: Rollout) -> None:
        """Where it is, and when it came to each step. Of a service's rollouts only one leaves series."""
        for each in RolloutState:
            self._state.labels(rollout.service, each.value).set(int(each is rollout.state))
        who = (rollout.service, str(rollout.number), rollout.build)
        if self._timed.get(rollout.service) != who:
            self._drop(self._began, rollout.service)
            self._timed[rollout.service] = who
        for event in rollout.history:
            self._began.labels(*who, event.state.value).set(event.at)

    def plan(self, service: str, plan: Plan) -> None:
        """Replaces what was said before: a version that the plan let go of leaves no series."""
        self._epoch.labels(service).set(plan.epoch)
        now = {(service, version, _role(plan, version)) for version in plan.serving}
        for gone in self._planned.get(service, frozenset()) - now:
            self._versions.remove(*gone)
        for each in now:
            self._versions.labels(*each).set(1)
        self._planned[service] = frozenset(now)

    def refused(self, status: int) -> None:
        if status in _REFUSALS:
            self._refused.labels(str(status)).inc()

    def left(self, service: str, state: RolloutState, seconds: float) -> None:
        self._seconds.labels(service, state.value).observe(seconds)
        if state in _KINDS:
            self._wait.labels(service, _KINDS[state]).observe(seconds)

    def missing(self, service: str, missing: tuple[Missing, ...]) -> None:
        now, before = frozenset(m.who for m in missing), self._named.get(service, frozenset())
        for gone in before - now:
            self._missing.remove(service, gone)
        for who in now - before:
            self._missing.labels(service, who).set(1)
        self._named[service] = now

    def forget(self, service: str) -> None:
        """The service is gone, or another replica drives it."""
        self.missing(service, ())
        self._timed.pop(service, None)
        self._planned.pop(service, None)
        for metric in (self._state, self._began, self._epoch, self._versions, self._seconds, self._wait):
            self._drop(metric, service)

    @staticmethod
    def _drop(metric: Gauge | Histogram, service: str) -> None:
        for values in {tuple(s.labels[n] for n in metric._labelnames) for m in metric.collect() for s in m.samples}:
            if dict(zip(metric._labelnames, values, strict=True))["service"] == service:
                metric.remove(*values)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _role(plan: Plan, version: str) -> str:
    if version == plan.default:
        return "default"
    return "ramp" if plan.ramp is not None and version == plan.ramp.version else "served"
