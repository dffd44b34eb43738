"""What happens in a scenario, line by line, as an operator would want to read it at night. Watches; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fleet import paths
from fleet.model import Ack, Enabled, HostStatus, Plan, Rollout, Turn, decode
from fleet.zk import Conflict, Op, Set
from tests.proof.edges import SERVICE
from tests.proof.scenarios import Scenario
from tests.proof.world import World
from tests.proof.zookeeper import Change, Session


class Scribe:
    def __init__(self, world: World) -> None:
        self._world = world
        self._began = world.now
        self._at = -1.0
        self._roster: set[str] = set()
        self.lines: list[str] = []
        world.server.watchers.append(self._written)
        world.server.refusals.append(self._refused)

    def _say(self, who: str, what: str) -> None:
        now = self._world.now - self._began
        self.lines.append(f"{f'{now:g} s' if now != self._at else '':>7}  {who:<10} {what}".rstrip())
        self._at = now

    def _written(self, session: Session, ops: Sequence[Op], changes: tuple[Change, ...]) -> None:
        for c in changes:
            name = c.path.rpartition("/")[2]
            below = c.path.removeprefix(f"{paths.service(SERVICE)}/").partition("/")[0]
            match below:
                case "rollouts" if c.after and name.isdigit():
                    self._rollout(session.name, decode(Rollout, c.before), Rollout.model_validate_json(c.after))
                case "plan" if c.after:
                    self._plan(decode(Plan, c.before) or Plan(), Plan.model_validate_json(c.after), session.name)
                case "enabled" if c.after:
                    enabled = Enabled.model_validate_json(c.after)
                    builds = ", ".join(b.build for b in enabled.builds)
                    self._say("", f"  hosts must run {builds} (serial {enabled.serial})")
                case "turns" if name != "turns":
                    turn = decode(Turn, c.after)
                    self._say(session.name, f"{name}: its turn" if turn else f"{name}: its turn is over")
                case "acks" if c.after and name != "acks":
                    self._ack(name, decode(Ack, c.before), Ack.model_validate_json(c.after))
                case "hosts" if c.after and name != "hosts":
                    self._host(decode(HostStatus, c.before), HostStatus.model_validate_json(c.after))
            if c.path.startswith(f"{paths.ROSTER}/"):
                self._say(name, "is waited for from now on" if c.after is not None else "is not waited for any more")
            if c.path == paths.FENCE and c.after:
                self._say(session.name, "leads")

    def _refused(self, session: Session, ops: Sequence[Op], why: Conflict) -> None:
        """A write that came too late: what it would have changed, and that the fence kept it out."""
        if str(why).startswith(paths.FENCE):
            decided = ", ".join(op.path.removeprefix(f"{paths.service(SERVICE)}/") for op in ops if isinstance(op, Set))
            self._say(session.name, f"would write {decided}: too late, the fence is another's")

    def _rollout(self, who: str, before: Rollout | None, after: Rollout) -> None:
        if before is None:
            ramp = f", ramp {', '.join(map(str, after.ramp))} %" if after.ramp else ""
            word = {"verdict": "a verdict", "hand": "somebody says so"}.get(str(after.hold)) if after.ramp else None
            held = f", each step held until {word}" if word else ""
            self._say(after.by, f"deploys {after.build}: rollout {after.number}{ramp}{held}")
            return
        if after.request and after.request != before.request:
            self._say(after.request.by, f"asks to {after.request.verb} rollout {after.number}")
        happened = after.history[len(before.history) :]
        if after.stalled != before.stalled and not happened:
            self._say(who, f"stalled: {'; '.join(after.stalled)}" if after.stalled else "it moves again")
        for event in happened:
            done = ", done" if after.done else ""
            self._say(who, f"rollout {after.number}: {event.text} [{before.state} -> {event.state}{done}]")

    def _plan(self, before: Plan, after: Plan, who: str) -> None:
        if after.rollout is None:
            self._say(after.updated_by or who, "changes the plan by hand")
        parts = [f"serves {', '.join(after.serving) or 'nothing'}", f"default {after.default or '-'}"]
        if after.ramp:
            parts.append(f"{after.ramp.percent} % of new documents {after.ramp.version}")
        if after.staged:
            parts.append(f"staged {after.staged.default}")
        if after.previews:
            parts.append(f"previews of {', '.join(p.version for p in after.previews)}")
        if after.mode != "pinned":
            parts.append(after.mode)
        self._say("", f"  plan {after.epoch}: {'; '.join(parts)}")

    def _ack(self, edge: str, before: Ack | None, after: Ack) -> None:
        had = before or Ack(incarnation="")
        shown = (after.applied, after.staged, after.drained, after.error, after.healthy)
        if shown == (had.applied, had.staged, had.drained, had.error, had.healthy) and before:
            return
        what = [f"epoch {after.applied}"]
        if after.staged < after.applied:
            what.append(f"staged {after.staged}")
        if after.drained < after.applied:
            what.append(f"drained {after.drained}")
        what += [f"{v} {n}/{after.members.get(v, 0)}" for v, n in sorted(after.healthy.items())]
        self._say(edge, ", ".join(what) + (f": {after.error}" if after.error else ""))

    def _host(self, before: HostStatus | None, after: HostStatus) -> None:
        shown = ", ".join(f"{s.build} {s.state.value}" for s in after.slots if s.build)
        had = ", ".join(f"{s.build} {s.state.value}" for s in before.slots if s.build) if before else ""
        if before and (shown, after.error) == (had, before.error):
            return
        self._say(after.name, (shown or "runs nothing") + (f": {after.error}" if after.error else ""))


def write(scenario: Scenario) -> str:
    """Title, what the leader waits for whenever that changes, and everything that is written, in its order."""
    world = scenario.world()
    scribe = Scribe(world)
    original, said = world.check, ""

    def check() -> None:
        nonlocal said
        original()
        leader = world.replicas.get(world.promises.leader)
        now = leader.said.partition("(")[2].removesuffix(")") if leader and world.active() else ""
        if now and now != said:
            scribe._say("", f"  waits for {now}")
        said = now

    world.check = check  # type: ignore[method-assign]
    scenario.play(world)
    hosts = "; ".join(
        f"{h.name} {', '.join(p.build for p in h.machine.pools.values())}" for h in world.machines.values()
    )
    return "\n".join([scenario.title, "", *scribe.lines, "", f"in the end: {hosts}", ""])
