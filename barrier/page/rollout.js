// The rollout: its steps, how far the present one is, who it waits for, what has happened, what may be asked of it.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { STATES, STEPS, duration, plural, stateOf, time } from "./words.js";

const VERBS = {
  pause: { label: "Pause", icon: "pause" },
  resume: { label: "Resume", icon: "play" },
  abort: { label: "Abort", icon: "cross", kind: "danger" },
  rollback: { label: "Roll back", icon: "back", kind: "danger" },
};

export function rolloutView(overview) {
  const { rollout, can } = overview;
  if (!rollout) {
    return [h("p", { class: "quiet" }, "Nothing has been rolled out yet."), actions([], overview)];
  }
  return [
    h("div", { class: "rollout-head" },
      h("div", {},
        h("h2", { id: "rollout-title" }, rollout.done ? `Last rollout, number ${rollout.number}` : `Rollout ${rollout.number}`),
        h("p", { class: "rollout-what" },
          rollout.previous ? [h("code", {}, rollout.previous), " → "] : null,
          h("code", {}, rollout.build), " ", badge(rollout.state, rollout.done)),
        h("p", { class: "quiet" }, `asked by ${rollout.by}`, rollout.reason ? [": ", h("q", {}, rollout.reason)] : null)),
      actions(can, overview)),
    stalled(overview),
    queued(overview),
    failures(rollout),
    steps(rollout),
    rollout.done ? null : progress(overview),
    h("div", { class: "rollout-body" }, waits(rollout), events(rollout)),
  ];
}

export function badge(state, done = true) {
  const { word, tone } = stateOf(state);
  const drawn = { good: "done", bad: "cross", warn: "warn", still: "back", busy: "wait" }[tone];
  const text = state === "switched" && !done ? "switching" : word;
  return h("span", { class: `badge ${state === "switched" && !done ? "busy" : tone}` }, icon(drawn), text);
}

/** Whether the ramp's present step waits for a verdict. */
const judged = ({ rollout, plan }) =>
  rollout?.state === "ramping" && rollout.hold === "verdict" && !rollout.request && plan.ramp !== null;

function actions(can, overview) {
  const buttons = can.map((verb) =>
    h("button", { key: verb, type: "button", class: `button ${VERBS[verb]?.kind ?? ""}`, "data-act": verb },
      icon(VERBS[verb]?.icon ?? "dot"), VERBS[verb]?.label ?? verb));
  if (judged(overview)) {
    buttons.unshift(h("button", { key: "verdict", type: "button", class: "button primary", "data-act": "verdict" }, icon("done"), "Verdict…"));
  }
  if (!overview.rollout || overview.rollout.done) {
    buttons.push(h("button", { key: "deploy", type: "button", class: "button", "data-act": "deploy" }, icon("up"), "Deploy…"));
  }
  return h("div", { class: "actions", role: "group", "aria-label": "What can be asked" }, buttons);
}

function queued({ queued: next }) {
  if (!next) return null;
  return h("p", { class: "notice" }, icon("wait"), h("span", {}, `Rollout ${next.number} of `, h("code", {}, next.build), `, asked for by ${next.by}, begins when this one is over. `,
    h("button", { type: "button", class: "button small danger", "data-act": "abort", "data-rollout": next.number, "aria-label": `Abort rollout ${next.number}` }, "Abort it…")));
}

const GIVES_UP = {
  abort: (seconds) => ` After ${duration(seconds)} without progress it is aborted by itself.`,
  evict: (seconds) => ` After ${duration(seconds)} without progress the edges that are missing are evicted by themselves.`,
};

function stalled({ rollout: { stalled: reasons, number }, when_stalled: then, give_up_seconds: seconds }) {
  if (!reasons.length) return null;
  return h("div", { class: "notice warn" }, icon("warn"),
    h("div", {}, h("strong", {}, `Rollout ${number} does not move`),
      h("ul", {}, reasons.map((r) => h("li", {}, r))),
      h("p", {}, "What users get has not changed. It goes on by itself as soon as those come back.", GIVES_UP[then]?.(seconds) ?? "")));
}

function failures({ failures: found }) {
  const entries = Object.entries(found);
  if (!entries.length) return null;
  return h("div", { class: "notice bad" }, icon("cross"),
    h("div", {}, h("strong", {}, `${plural(entries.length, "host")} failed`),
      h("ul", {}, entries.map(([who, why]) => h("li", {}, h("code", {}, who), ": ", why)))));
}

/** For each step: seconds spent in it, whether it was entered, and the state that counts as the present one. */
function path(rollout) {
  const spent = STEPS.map(() => null);
  const entered = STEPS.map((_, i) => i === 0);
  let before = "queued";
  for (const event of rollout.history) {
    const from = STATES[before]?.step;
    if (from != null && event.seconds != null) spent[from] = (spent[from] ?? 0) + event.seconds;
    const to = STATES[event.state]?.step;
    if (to != null) entered[to] = true;
    before = event.state;
  }
  return { spent, entered };
}

function steps(rollout) {
  const { spent, entered } = path(rollout);
  const interrupted = STATES[rollout.state]?.step == null;
  const at = interrupted ? (STATES[rollout.resume_to]?.step ?? entered.lastIndexOf(true)) : STATES[rollout.state].step;
  const finished = rollout.done && rollout.state === "switched";
  const shown = STEPS.map((name, i) => ({ name, i })).filter(({ i }) => i !== 4 || rollout.ramp.length || entered[4]);
  return h("ol", { class: "steps", "aria-label": "Steps" }, shown.map(({ name, i }) => {
    let kind = "later";
    if (i < at) kind = entered[i] ? "done" : "skipped";
    else if (i === at) kind = finished ? "done" : interrupted ? "stopped" : "now";
    const said = { later: "to come", done: "done", skipped: "not needed", stopped: stateOf(rollout.state).word, now: "now" }[kind];
    const drawn = { later: "ring", done: "done", skipped: "skip", now: "dot",
      stopped: { paused: "pause", failed: "cross", aborted: "cross" }[rollout.state] ?? "back" }[kind];
    const below = kind === "stopped" || kind === "skipped" || spent[i] == null ? said : duration(spent[i]);
    return h("li", { key: name, class: `step ${kind}`, "aria-current": kind === "now" || kind === "stopped" ? "step" : null },
      h("span", { class: "step-mark" }, icon(drawn)),
      h("span", { class: "step-name" }, name),
      h("span", { class: "step-below" }, below, below === said ? null : h("span", { class: "unseen" }, `, ${said}`)));
  }));
}

/** How far the present step is, as counted: hosts while they install, edges while they agree. */
function progress({ rollout, wave, plan, rostered, versions }) {
  const state = rollout.state === "paused" ? rollout.resume_to : rollout.state;
  if (state === "installing" || state === "aborting") {
    const share = `${wave.reached} of ${plural(wave.hosts, "host")} ${wave.reached === 1 ? "is" : "are"} there`;
    const turns = `${wave.turns} in turn, at most ${wave.limit} at once`;
    const failed = wave.failed ? `, ${wave.failed} failed (at most ${wave.max_failures} may)` : "";
    return bar(wave.reached, wave.hosts, `${share}; ${turns}${failed}`);
  }
  if (state === "ramping" && plan.ramp) {
    const next = rollout.ramp.find((p) => p > plan.ramp.percent && p < 100);
    return bar(plan.ramp.percent, 100, `${plan.ramp.percent} % of new pages get ${plan.ramp.version}; next ${next ? `${next} %` : "the switch"}`);
  }
  if (state === "queued") return null;
  const missing = new Set(rollout.missing.map((m) => m.who)).size;
  const there = Math.max(0, rostered - missing);
  const ready = versions.find((v) => v.build === rollout.build);
  const what = { withdrawing: "have drained the old plan", offering: "are ready for the switch" }[state] ?? "have applied the plan";
  if (state === "offering" && !ready?.registered) return bar(0, rostered, "no host has registered it yet");
  return bar(there, rostered, `${there} of ${plural(rostered, "edge")} ${what}`);
}

function bar(value, most, text) {
  return h("div", { class: "progress" },
    h("progress", { value, max: Math.max(1, most), "aria-label": text }),
    h("span", { "aria-hidden": "true" }, text));
}

function waits(rollout) {
  if (rollout.done) return null;
  const missing = rollout.state === "paused" ? [] : rollout.missing;
  const heading = missing.length ? `Waits for ${missing.length}` : rollout.state === "paused" ? "Waits for a person" : "Waits for nobody";
  return h("section", { "aria-labelledby": "waits-title" },
    h("h3", { id: "waits-title" }, heading),
    rollout.state === "paused" ? h("p", { class: "quiet" }, "Resume goes on, and hosts that failed try again. Abort puts back what ran before.")
    : missing.length
      ? h("dl", { class: "missing" }, missing.map((m, i) => [
        h("dt", { key: `${i}${m.who}` }, m.who), h("dd", { key: `${i}${m.who}.` }, m.why.replaceAll("`", ""))]))
      : h("p", { class: "quiet" }, "The next step is on its way."));
}

function events(rollout) {
  const lines = [...rollout.history].reverse();
  return h("section", { "aria-labelledby": "history-title" },
    h("h3", { id: "history-title" }, "What has happened"),
    lines.length
      ? h("ol", { class: "history", reversed: true }, lines.map((e, i) =>
        h("li", { key: lines.length - i },
          h("time", { datetime: new Date(e.at * 1000).toISOString() }, time(e.at)),
          h("span", {}, e.text, h("span", { class: "quiet" },
            ` epoch ${e.epoch}${e.seconds == null ? "" : `, after ${duration(e.seconds)}`}`)))))
      : h("p", { class: "quiet" }, "Nothing yet."));
}
