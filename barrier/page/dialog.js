// Asks before anything is done: what will happen, why it is asked (which the audit keeps), and, where the token at hand
// may not, another token. What the service refuses is shown in its own words, and nothing typed is lost.

import * as api from "./api.js";
import { h, sync } from "./dom.js";
import { icon } from "./icons.js";
import { keep } from "./session.js";
import { consequences } from "./words.js";

const TITLES = {
  pause: "Pause the rollout", resume: "Resume the rollout", abort: "Abort the rollout", rollback: "Roll back",
  deploy: "Deploy", evict: "Evict an edge", verdict: "Give the verdict",
};
const VERDICTS = [
  ["pass", "go on to the next step"], ["fail", "abort the rollout"], ["undecided", "only write it down"],
];
const DANGER = new Set(["abort", "rollback", "evict"]);

export class Dialog {
  /** `on.done(sentence)` after success, `on.me(me)` when another token was given. */
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.root.addEventListener("click", (event) => {
      if (event.target === this.root || event.target.closest("[data-close]")) this.root.close();
    });
    this.root.addEventListener("close", () => sync(this.root, []));
  }

  /** `verb` about `overview` by `me`; `edge` where it is one that is meant, `number` where it is not the rollout shown. */
  async open(verb, overview, me, { edge = null, number = null } = {}) {
    const rollout = number === null ? overview.rollout : overview.queued;
    this.now = { verb, overview, rollout, me, edge, error: null, busy: false, builds: null, keys: new Map() };
    this.draw();
    this.root.showModal();
    if (verb === "deploy") await this.fetchBuilds();
  }

  async fetchBuilds() {
    const { now } = this;
    try {
      now.builds = await api.builds(now.overview.service);
    } catch (refused) {
      now.error = refused.message;
      now.builds = [];
    }
    if (this.now === now && this.root.open) this.draw();
  }

  draw() {
    const { verb, overview, rollout, me, edge, error, busy } = this.now;
    const may = me.role !== "read";
    sync(this.root, h("form", { class: "ask", method: "dialog", "aria-labelledby": "ask-title" },
      h("h2", { id: "ask-title" }, TITLES[verb], edge ? [": ", h("code", {}, edge)] : null),
      h("p", { class: "quiet" }, "Service ", h("code", {}, overview.service),
        ["deploy", "evict"].includes(verb) ? null : [`, rollout ${rollout.number} of `, h("code", {}, rollout.build)]),
      this.tells().map((text) => h("p", {}, text)),
      verb === "deploy" ? this.deployFields() : null,
      verb === "verdict" ? this.verdictFields() : null,
      h("label", { for: "ask-reason" }, verb === "evict" ? "Reason (needed; the audit keeps it)" : "Reason (the audit keeps it)"),
      h("input", { id: "ask-reason", name: "reason", maxlength: 1000, autocomplete: "off", required: verb === "evict" }),
      may ? null : [
        h("p", { class: "notice warn" }, icon("warn"), h("span", {}, `The token of ${me.name} only reads. This needs one with the role deploy.`)),
        h("label", { for: "ask-token" }, "Token with the role deploy"),
        h("input", { id: "ask-token", name: "token", type: "password", autocomplete: "off", spellcheck: "false" })],
      h("p", { class: "notice bad", role: "alert", hidden: !error }, icon("cross"), h("span", {}, error ?? "")),
      h("div", { class: "ask-buttons" },
        h("button", { type: "button", class: "button", "data-close": true }, "Cancel"),
        h("button", { type: "submit", class: `button ${DANGER.has(verb) ? "danger filled" : "primary"}`, "aria-disabled": busy ? "true" : null },
          busy ? "Asking…" : TITLES[verb]))));
  }

  tells() {
    const { verb, overview, rollout, edge } = this.now;
    if (verb === "evict") {
      return [`From now on no barrier waits for ${edge}, whatever version it still serves.`,
        "First take it out of the load balancer: evicting it says that no user's request reaches it any more."];
    }
    if (verb === "deploy") {
      const { plan } = overview;
      if (!plan.default) return ["Every host installs the build, then every edge switches to it."];
      const leaves = plan.serving.filter((v) => v !== plan.default);
      return [leaves.length ? `${leaves.join(", ")} is withdrawn; pages that are still on it are told once to reload.` : "",
        `Hosts install the build beside ${plan.default}, a wave at a time; when every edge is ready, new pages come from it.`].filter(Boolean);
    }
    return consequences(verb, { ...overview, rollout });
  }

  deployFields() {
    const { builds, overview } = this.now;
    const marks = Object.fromEntries(overview.versions.map((v) => [v.build, v.roles.join(", ")]));
    return [
      h("label", { for: "ask-build" }, "Build"),
      builds === null ? h("p", { id: "ask-build", class: "quiet" }, "Looking for builds…")
        : h("select", { id: "ask-build", name: "build", required: true },
          h("option", { value: "", key: "." }, builds.length ? "Choose one" : "None has been published"),
          [...builds].reverse().map((b) => h("option", { key: b, value: b }, marks[b] ? `${b} (${marks[b]})` : b))),
      overview.strategy === "dual" && overview.plan.default ? [
        h("label", { for: "ask-ramp" }, "Ramp (percent of new pages, growing; empty: all at once)"),
        h("input", { id: "ask-ramp", name: "ramp", placeholder: "1, 10, 50", inputmode: "numeric", pattern: "[0-9, ]*", autocomplete: "off" })] : null];
  }

  verdictFields() {
    return [
      h("label", { for: "ask-verdict" }, "Verdict"),
      h("select", { id: "ask-verdict", name: "verdict", required: true },
        h("option", { value: "", key: "." }, "Choose one"),
        VERDICTS.map(([verdict, means]) => h("option", { key: verdict, value: verdict }, `${verdict}: ${means}`)))];
  }

  async submit() {
    const { now } = this;
    if (now.busy) return;
    const fields = new FormData(this.root.querySelector("form"));
    this.show({ busy: true, error: null });
    try {
      await this.useToken(now, (fields.get("token") ?? "").trim());
      const done = await this.ask(now, fields);
      if (this.now !== now) return;
      this.root.close();
      this.on.done(done);
    } catch (refused) {
      if (!(refused instanceof api.Refusal)) throw refused;
      if (this.now === now) this.show({ error: refused.message });
    } finally {
      if (this.now === now && this.root.open) this.show({ busy: false });
    }
  }

  async useToken(now, token) {
    if (!token) return;
    const me = await api.whoami(token);
    keep(token);
    now.me = me;
    this.on.me(me);
  }

  /** The same deploy asked for twice is one; another body is another. */
  key(body) {
    const text = JSON.stringify(body);
    const { keys } = this.now;
    if (!keys.has(text)) keys.set(text, crypto.getRandomValues(new Uint32Array(4)).join("-"));
    return keys.get(text);
  }

  async ask({ verb, overview, rollout, edge }, fields) {
    const reason = fields.get("reason").trim();
    const { service } = overview;
    if (verb === "evict") {
      await api.evict(edge, reason);
      return `${edge} is evicted.`;
    }
    if (verb === "deploy") {
      const ramp = (fields.get("ramp") ?? "").split(/[\s,]+/).filter(Boolean).map(Number);
      const body = { build: fields.get("build"), ramp, reason };
      const made = await api.deploy(service, body, this.key(body));
      return `Rollout ${made.number} of ${made.build} has begun.`;
    }
    if (verb === "verdict") {
      const { percent } = overview.plan.ramp;  // of the step that was looked at: the service refuses it for another one
      const verdict = fields.get("verdict");
      await api.verdict(service, rollout.number, { verdict, percent, reason });
      return `Verdict on ${rollout.build} at ${percent} %: ${verdict}.`;
    }
    await api.act(service, rollout.number, verb, reason);
    return `Asked to ${verb === "rollback" ? "roll back" : verb} rollout ${rollout.number}.`;
  }

  show(changes) {
    Object.assign(this.now, changes);
    if (this.root.open) this.draw();
  }
}
