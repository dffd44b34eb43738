// What is said of states, in words. Pure: values in, words out.

/** Of each state of a rollout: a word, a tone, the step that it belongs to. */
export const STATES = {
  queued: { word: "queued", tone: "busy", step: 0 },
  withdrawing: { word: "withdrawing", tone: "busy", step: 1 },
  installing: { word: "installing", tone: "busy", step: 2 },
  offering: { word: "offering", tone: "busy", step: 3 },
  ramping: { word: "ramping", tone: "busy", step: 4 },
  switched: { word: "switched", tone: "good", step: 5 },
  paused: { word: "paused", tone: "warn", step: null },
  aborting: { word: "aborting", tone: "warn", step: null },
  aborted: { word: "aborted", tone: "still", step: null },
  rolling_back: { word: "rolling back", tone: "warn", step: null },
  rolled_back: { word: "rolled back", tone: "still", step: null },
  failed: { word: "failed", tone: "bad", step: null },
};

export const STEPS = ["Queue", "Withdraw", "Install", "Offer", "Ramp", "Switch"];

export const stateOf = (state) => STATES[state] ?? { word: String(state), tone: "warn", step: null };

export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

export const number = (n) => Math.round(n).toLocaleString("en");

/** A rate or a share of a count: as many digits as it deserves. */
export const some = (n) => (n === 0 ? "0" : n < 10 ? n.toFixed(1).replace(/\.0$/, "") : number(n));

export function duration(seconds) {
  if (seconds < 10) return `${some(seconds)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** The writer's clock, for people. */
export function time(at, now = new Date()) {
  const then = new Date(at * 1000);
  const clock = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  if (then.toDateString() === now.toDateString()) return clock;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })} ${clock}`;
}

export function list(names, most = 3) {
  const shown = names.slice(0, most);
  const rest = names.length - shown.length;
  if (rest > 0) return `${shown.join(", ")} and ${rest} more`;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

/** What is served, in a sentence. */
export function serves({ plan }) {
  if (!plan.default) return "Nothing is served yet.";
  const others = plan.serving.filter((v) => v !== plan.default);
  if (plan.mode === "mixed") return `${list(plan.serving)} in one pool; pins are ignored.`;
  return others.length ? `${plan.default} is the default; ${list(others)} is served beside it.`
    : `${plan.default} is the default, and the only version served.`;
}

/** What the rollout is at, in a sentence; null where none is active. */
export function moves({ rollout }) {
  if (!rollout || rollout.done) return null;
  const what = `Rollout ${rollout.number} of ${rollout.build} is ${stateOf(rollout.state).word}`;
  const names = rollout.missing.map((m) => m.who);
  if (rollout.request) {
    const first = names.length ? `; it waits for ${list(names)} first` : "";
    return `${what}; ${rollout.request.by} asked to ${rollout.request.verb} it${first}.`;
  }
  if (rollout.state === "paused") return `${what}: it waits for somebody to resume or abort it.`;
  if (names.join() === "ramp") return `${what}; it is held at this step.`;
  return names.length ? `${what}; it waits for ${list(names)}.` : `${what}.`;
}

/** What to say aloud when one view follows another; null where nothing has changed that deserves it. */
export function change(before, after) {
  const was = before?.rollout;
  const is = after.rollout;
  if (!before || before.service !== after.service || !is) return null;
  if (!was || was.number !== is.number) return `Rollout ${is.number} of ${is.build} has begun.`;
  if (is.stalled.length && !was.stalled.length) return `Rollout ${is.number} has stalled: ${list(is.stalled)}.`;
  if (was.stalled.length && !is.stalled.length && was.state === is.state) return `Rollout ${is.number} moves again.`;
  if (was.state !== is.state || was.done !== is.done) {
    return `Rollout ${is.number} of ${is.build}: ${is.history.at(-1)?.text ?? stateOf(is.state).word}.`;
  }
  return null;
}

/** What an action will do, before it is asked for. */
export function consequences(verb, { rollout, plan }) {
  const build = rollout?.build;
  const stays = plan.default ? `${plan.default} stays the default` : "nothing is served";
  switch (verb) {
    case "pause":
      return [`Rollout ${rollout.number} stops where it is until somebody resumes or aborts it.`,
        "Hosts in their turn finish it; no other gets one. What users get does not change."];
    case "resume":
      if (rollout.state === "ramping") {
        return [`The hold of this step ends: the ramp to ${build} goes on at once, as soon as every edge is ready.`];
      }
      return [`Rollout ${rollout.number} goes on from where it was paused; hosts that failed try again.`];
    case "verdict":
      return [`The ramp waits at ${plan.ramp.percent} % for somebody to say how ${build} compares with ${plan.default}.`];
    case "abort":
      if (rollout.state === "queued") return [`Rollout ${rollout.number} does not begin. Nothing has been touched for it.`];
      return [`${build} is no longer offered, and the hosts get back what they ran before.`,
        `${stays}${plan.ramp ? `; the ${plan.ramp.percent} % of new pages that got ${plan.ramp.version} get the default again` : ""}.`];
    case "rollback":
      return [`${rollout.previous} becomes the default again on every edge, within moments: it still runs, nothing is installed.`,
        `Pages that are open on ${build} stay on it until the next release.`];
  }
  return [];
}
