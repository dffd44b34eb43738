"""Since when the leader has seen each preview: they end by its monotonic clock, and a new leader counts anew."""

from __future__ import annotations

from fleet.model import Plan


class Lifetimes:
    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}

    def over(self, service: str, plan: Plan, now: float) -> frozenset[str]:
        """Tokens whose time is over. Forgets those that are no longer in the plan."""
        there = {(service, p.token): p.seconds for p in plan.previews}
        self._since = {k: t for k, t in self._since.items() if k[0] != service or k in there}
        for key in there:
            self._since.setdefault(key, now)
        return frozenset(key[1] for key, seconds in there.items() if now - self._since[key] >= seconds)

    def keep(self, services: frozenset[str]) -> None:
        """Those are the services that there are."""
        self._since = {k: t for k, t in self._since.items() if k[0] in services}
