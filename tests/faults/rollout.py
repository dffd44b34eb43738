"""One rollout of a fleet that is being hurt: what the clients' judge must know of it, what must be so at its end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.model import RolloutState
from pinrail.demo.check import Release
from pinrail.local import processes
from pipeline.client import RolloutNow

if TYPE_CHECKING:
    from tests.faults.fleet import Fleet

SERVICE = "ngapp"


class Rollout:
    """One rollout, as the clients' judge must know of it."""

    def __init__(self, fleet: Fleet, build: str, *, hold: bool) -> None:
        self._fleet = fleet
        self.build = build
        self.before = fleet.plan
        self.pools = pools(fleet)
        clients = fleet.clients
        oldest = tuple(v for v in self.before.serving if v != self.before.default)
        self._release = Release(build, build, clients.clock(), withdrawn=oldest)
        clients.releases.append(self._release)
        more: dict[str, Any] = {"ramp": (10,), "hold": 3600} if hold else {}
        self.number = fleet.until(
            "the rollout is accepted", lambda: fleet.api.deploy(SERVICE, build, reason="faults", key=build, **more)
        ).number

    @property
    def default(self) -> str:
        """What everybody got when it began: B of the protocol."""
        return str(self.before.default)

    @property
    def oldest(self) -> str:
        """What it withdraws: A."""
        return str(self.before.serving[-1])

    def now(self) -> RolloutNow:
        return self._fleet.look(self.number)

    def missing(self) -> dict[str, str]:
        return {m.who: m.why for m in self.now().missing}

    def waits(self, state: RolloutState, *who: str) -> dict[str, str]:
        """Until it is in ``state`` and waits for exactly ``who``; their reasons."""

        def there() -> dict[str, str] | None:
            now = self.now()
            missing = {m.who: m.why for m in now.missing}
            return missing if now.state is state and set(missing) == set(who) else None

        found: dict[str, str] = self._fleet.until(f"it is {state.value} and waits for {', '.join(who)}", there)
        return found

    def reaches(self, state: RolloutState) -> RolloutNow:
        now: RolloutNow = self._fleet.until(
            f"it is {state.value}", lambda: now if (now := self.now()).state is state else None
        )
        return now

    def ask(self, verb: Any) -> None:
        fleet = self._fleet
        if verb in ("abort", "rollback"):
            # Before the switch it is the new version that goes: pages that a ramp gave out are told so.
            gone = () if self.now().state is RolloutState.SWITCHED else (self.build,)
            back = Release("back", self.default, fleet.clients.clock(), withdrawn=gone, rollback=True)
            fleet.clients.releases.append(back)
        fleet.until(f"{verb} is accepted", lambda: fleet.api.ask(SERVICE, self.number, verb, "faults"))

    def over(self, state: RolloutState, *, ramped: bool = False) -> None:
        """Until it is over, in that state, and everything is as it should be then: plan, hosts, and what edges give.

        ``ramped``: pages had come from the new version when it was taken back, and stay.
        """
        fleet = self._fleet
        last = fleet.until("the rollout is over", lambda: now if (now := self.now()).over else None)
        assert last.state is state, (last.state, last.history[-1].text, last.failures)
        plan = fleet.plan
        back = state is RolloutState.ABORTED and not ramped
        default = self.build if state is RolloutState.SWITCHED else self.default
        assert plan.default == default
        assert set(plan.serving) == (set(self.before.serving) if back else {self.build, self.default})
        wanted = set(plan.serving)
        fleet.until("hosts run what is served", lambda: all(builds(h) == wanted for h in fleet.hosts().values()))
        assert len(fleet.hosts()) == len(fleet.state.hosts)
        after = pools(fleet)
        kept = {key: pids for key, pids in self.pools.items() if key[1] == self.default}
        assert {key: after.get(key) for key in kept} == kept, "the default's processes were touched"
        for edge in (e.id for e in fleet.state.edges):
            fleet.until(f"{edge} has applied it", lambda e=edge: fleet.ack(e).get("applied") == plan.epoch)
            assert fleet.ask(edge)[0] == default
            assert {fleet.ask(edge, v)[0] for v in wanted} == wanted
        history = last.history
        assert [h.epoch for h in history] == sorted(h.epoch for h in history), "epochs only grow"


def builds(host: Mapping[str, Any]) -> set[str]:
    """What serves on that host."""
    return {s["build"] for s in host["status"]["slots"] if s["state"] == "serving"}


def pools(fleet: Fleet) -> dict[tuple[str, str], frozenset[int]]:
    """(host, build) -> the processes of its pool, as the kernel has them."""
    found: dict[tuple[str, str], set[int]] = {}
    for pid in processes.of_fleet(fleet.state.id, fleet.state.supervisor.pid, fleet.state.supervisor.started):
        with suppress(OSError):
            words = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            own = dict(w.decode(errors="replace").split("=", 1) for w in words if b"=" in w)
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            if "PINRAIL_VERSION" in own and b"serve.py" in command:
                found.setdefault((own.get("PINRAIL_HOST", ""), own["PINRAIL_VERSION"]), set()).add(pid)
    return {key: frozenset(pids) for key, pids in found.items()}
