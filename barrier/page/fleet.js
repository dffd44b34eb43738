// What is really out there: the plan, its versions, every edge and every host, the barriers and who is missing.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { badge } from "./rollout.js";
import { duration, plural, time } from "./words.js";

const code = (text) => h("code", {}, text);

function status(tone, drawn, ...words) {
  return h("span", { class: `status ${tone}` }, icon(drawn), h("span", {}, words));
}

// Roles are spelled out: on a phone the tables are shown as lists, and a browser then forgets that they are tables.
const row = (key, name, ...cells) => h("tr", { key, role: "row" }, h("th", { scope: "row", role: "rowheader" }, name), cells);
const cell = (label, attributes, ...children) => h("td", { "data-label": label, role: "cell", ...attributes }, children);

function table(caption, headings, rows) {
  return h("table", { class: "stack", role: "table" },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings.map((t) =>
      h("th", { scope: "col", role: "columnheader" }, t || h("span", { class: "unseen" }, "Actions"))))),
    h("tbody", { role: "rowgroup" }, rows));
}

export function planView({ plan, strategy }) {
  const beside = plan.serving.filter((v) => v !== plan.default);
  const facts = [
    ["Default", plan.default ? code(plan.default) : "none"],
    ["Also served", beside.length ? beside.map((v, i) => [i ? " " : "", code(v)]) : "nothing"],
    ["Staged", plan.staged ? [code(plan.staged.default), plan.staged.ramp ? ` with a ramp of ${plan.staged.ramp.percent} %` : ""] : "nothing"],
    ["Ramp", plan.ramp ? [`${plan.ramp.percent} % to `, code(plan.ramp.version)] : "none"],
    ["Epoch", plan.epoch],
    ["Generation", plan.generation],
  ];
  if (strategy !== "dual") facts.push(["Strategy", "in place"]);
  if (plan.updated_by) facts.push(["Written by", plan.updated_by]);
  return h("dl", { class: "facts" }, facts.map(([name, value]) =>
    h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))));
}

export function versionsView({ versions, rostered, floor }) {
  if (!versions.length) return h("p", { class: "quiet" }, "No version is served.");
  return h("ul", { class: "versions" }, versions.map((v) => {
    const good = v.registered > 0 && v.ready === rostered;
    return h("li", { key: v.build },
      h("span", { class: "version-name" }, code(v.build), v.roles.map((r) => [" ", h("span", { class: "role" }, r)])),
      status(good ? "good" : "warn", good ? "done" : "warn",
        v.registered ? `${plural(v.registered, "host")}, healthy at ${v.ready} of ${plural(rostered, "edge")}` : "no host has it registered"),
    );
  }), h("li", { class: "quiet", key: "." }, `An edge counts once it sees ${floor} % of a version's hosts healthy.`));
}

export function edgesView({ edges, edges_total: total, plan, versions, floor }) {
  if (!edges.length) return h("p", { class: "quiet" }, "No edge has joined.");
  const builds = versions.map((v) => v.build);
  const rows = edges.map((edge) => row(edge.name, where(edge),
    cell("State", {}, edgeStatus(edge, plan)),
    builds.map((build) => cell(build, { class: "number" }, health(edge.ack, build, floor))),
    cell("Epoch", { class: "number" }, edge.ack ? epochs(edge.ack, plan) : "–"),
    cell("", { class: "row-act" }, edge.rostered && edge.behind !== null
      ? h("button", { type: "button", class: "button small danger", "data-act": "evict", "data-edge": edge.name, "aria-label": `Evict ${edge.name}` }, "Evict…")
      : null)));
  return [table("Edges, with healthy of registered hosts for each version", ["Edge", "State", ...builds, "Epoch", ""], rows), rest(edges, total, "edge")];
}

function where(edge) {
  let url = null;
  try {
    url = new URL(edge.url);
  } catch {
    // an edge need not say where it is
  }
  if (!url || !["http:", "https:"].includes(url.protocol)) return edge.name;
  return h("a", { href: url.href, rel: "noopener noreferrer", target: "_blank" }, edge.name);
}

function edgeStatus(edge, plan) {
  if (edge.ack?.error) return status("bad", "cross", edge.behind ? `${edge.behind}: ` : "", edge.ack.error);
  if (edge.behind !== null) {
    const draining = edge.ack?.applied === plan.epoch && edge.ack.staged === plan.epoch;
    return status(!edge.rostered ? "still" : draining ? "busy" : "warn", draining ? "wait" : "warn", edge.behind);
  }
  if (!edge.rostered) return status("still", "skip", "not waited for");
  return status("good", "done", "up to date");
}

function health(ack, build, floor) {
  if (!ack) return "–";
  const seen = ack.healthy[build] ?? 0;
  const members = ack.members[build] ?? 0;
  if (!members) return h("span", { class: "quiet" }, "–");
  const enough = seen >= Math.max(1, Math.ceil((members * floor) / 100));
  return h("span", { class: enough ? "" : "low" }, `${seen}/${members}`, enough ? null : [" ", icon("warn"), h("span", { class: "unseen" }, "below the floor")]);
}

function epochs(ack, plan) {
  if (ack.applied === plan.epoch && ack.staged === plan.epoch && ack.drained === plan.epoch) return String(plan.epoch);
  const behind = [["applied", ack.applied], ["staged", ack.staged], ["drained", ack.drained]];
  return behind.filter(([, n]) => n !== plan.epoch).map(([name, n], i) => [i ? ", " : "", `${name} ${n}`]);
}

const HOST = {
  ready: ["good", "done", "ready"],
  working: ["busy", "wait", "in its turn"],
  waiting: ["still", "ring", "waiting"],
  failed: ["bad", "cross", "failed"],
  gone: ["bad", "warn", "gone"],
};

export function hostsView({ hosts, hosts_total: total, wave }) {
  if (!hosts.length) return h("p", { class: "quiet" }, "No host has registered.");
  const slots = Math.max(1, ...hosts.map((host) => host.slots.length));
  const headings = ["Host", "State", ...Array.from({ length: slots }, (_, i) => `Slot ${i + 1}`)];
  const rows = hosts.map((host) => {
    const [tone, drawn, word] = HOST[host.state] ?? ["warn", "warn", host.state];
    return row(host.name, [host.name, host.role === "default" ? null : [" ", h("span", { class: "role" }, host.role)]],
      cell("State", {}, status(tone, drawn, host.why && host.state !== "waiting" ? `${word}: ${host.why}` : (host.why ?? word))),
      Array.from({ length: slots }, (_, i) => cell(`Slot ${i + 1}`, {}, host.slots[i] ? slot(host.slots[i]) : "–")));
  });
  return [
    h("p", { class: "quiet" }, `${wave.reached} of ${plural(wave.hosts, "host")} at serial ${wave.serial}, `
      + `${wave.turns} in turn, at most ${wave.limit} at once.`),
    table("Hosts and what runs in their slots", headings, rows), rest(hosts, total, "host")];
}

function slot({ build, state, port, processes, live }) {
  if (!build) return h("span", { class: "quiet" }, state === "empty" ? "empty" : state);
  const usual = state === "serving";
  return [code(build), " ", h("span", { class: usual ? "quiet" : "low" },
    [usual ? null : `${state}, `, `:${port}`, processes ? ` ${live}/${processes}` : ""])];
}

export function barriersView({ barriers, rostered }) {
  const rows = barriers.map((b) => row(b.id, code(b.id),
    cell("Met", {}, b.met ? status("good", "done", `by all ${plural(rostered, "edge")}`) : status("warn", "wait", "not yet")),
    cell("Missing", { class: "wide" }, b.missing.length
      ? h("ul", { class: "plain" }, b.missing.map((m, i) => h("li", { key: i }, h("strong", {}, m.edge), ": ", m.why)))
      : h("span", { class: "quiet" }, "nobody"))));
  return table("Barriers of the present plan", ["Barrier", "Met", "Missing, and why"], rows);
}

export function pastView({ past }) {
  const over = past.filter((r) => r.done);
  if (!over.length) return h("p", { class: "quiet" }, "None yet.");
  const rows = over.map((r) => row(r.number, [`${r.number} `, code(r.build)],
    cell("Result", {}, badge(r.state, r.done)),
    cell("By", {}, r.by),
    cell("Began", {}, r.began == null ? "not at all" : time(r.began)),
    cell("Took", { class: "number" }, duration(r.seconds)),
    cell("In the end", { class: "wide" }, r.says, r.reason ? [" ", h("q", { class: "quiet" }, r.reason)] : null)));
  return table("Rollouts that are over, the last first", ["Rollout", "Result", "By", "Began", "Took", "In the end"], rows);
}

const rest = (shown, total, one) => total > shown.length
  ? h("p", { class: "quiet" }, `${shown.length} of ${plural(total, one)} are shown, those that need attention first.`) : null;

export function servicesView(lines) {
  if (!lines.length) return h("p", { class: "quiet" }, "No service is configured that this token is good for.");
  const rows = lines.map((line) => {
    const others = line.serving.filter((v) => v !== line.default);
    return row(line.service, h("a", { href: `#/${encodeURIComponent(line.service)}` }, line.service),
      cell("Default", {}, line.default ? code(line.default) : h("span", { class: "quiet" }, "none")),
      cell("Beside it", {}, others.length ? others.map((v, i) => [i ? " " : "", code(v)]) : h("span", { class: "quiet" }, "none")),
      cell("Rollout", {}, doing(line)));
  });
  return table("Services", ["Service", "Default", "Beside it", "Rollout"], rows);
}

function doing(line) {
  if (line.trouble) return status("bad", "cross", line.trouble);
  if (!line.rollout) return h("span", { class: "quiet" }, "none under way");
  const words = [`${line.rollout} `, line.build ? code(line.build) : "", " "];
  return [words, line.state ? badge(line.state, false) : null, line.stalled ? [" ", status("warn", "warn", "stalled")] : null];
}
