// Flip-flops over time: by cause, stacked on one axis, with what rollouts did as a lane below. Drawn here, as SVG, with
// every coordinate on the clock of the one replica that counted; no other clock has a say.

import { h } from "./dom.js";
import { icon } from "./icons.js";
import { duration, number, plural, some } from "./words.js";

/** From the bottom of a stack to its top. What must never happen comes first; each has its own pattern, not only a colour. */
export const CAUSES = [
  ["stamp", "a host answered with another version than it should"],
  ["newer", "a newer page than the client's version was given"],
  ["generation", "an older page than the client had was given"],
  ["gone", "no host of the page's version answered"],
  ["mixed", "the service is deployed in place, pins are ignored"],
  ["unknown", "the page named a version that nobody knows"],
  ["retired", "the page's version is no longer served: told once to reload"],
];

export const SPANS = [[600, "10 min"], [3600, "1 h"]];
const KEPT = 720;

/** The rounds that have come so far, of one window of one replica. */
export class Rounds {
  constructor() {
    this.window = null;
    this.rounds = [];
    this.next = 0;
    this.marks = [];
    this.silent = [];
    this.edges = 0;
    this.now = 0;
  }

  take(view) {
    const follows = view.window === this.window && view.first <= this.next;
    const known = follows ? this.rounds.slice(0, this.rounds.length - (this.next - view.first)) : [];
    this.rounds = [...known, ...view.rounds].slice(-KEPT);
    Object.assign(this, { window: view.window, next: view.next, marks: view.marks, silent: view.silent, edges: view.edges, now: view.now });
  }

  within(seconds) {
    return this.rounds.filter((r) => r.end > this.now - seconds);
  }

  /** Sums over the last `seconds`. */
  sum(seconds) {
    const total = { requests: 0, forced: 0, fault: 0, back: 0, seconds: 0, causes: {} };
    for (const r of this.within(seconds)) {
      for (const what of ["requests", "forced", "fault", "back", "seconds"]) total[what] += r[what] ?? 0;
      for (const [cause, n] of Object.entries(r.causes ?? {})) total.causes[cause] = (total.causes[cause] ?? 0) + n;
    }
    return total;
  }
}

const perMinute = (n, seconds) => (seconds > 0 ? (n / seconds) * 60 : 0);

/** The last minute in four numbers. */
export function ratesView(rounds) {
  const last = rounds.sum(60);
  const tiles = [
    ["fault", "Faults", "another version answered, unasked", last.fault > 0 ? "bad" : "good"],
    ["back", "Back", "an older page than the client had", last.back > 0 ? "bad" : "good"],
    ["forced", "Moved", "told to reload, its version is gone", ""],
    ["requests", "Requests", "in all", ""],
  ];
  return h("ul", { class: "tiles", "aria-label": "A minute, from the last minute" }, tiles.map(([what, name, means, tone]) =>
    h("li", { key: what, class: `tile ${last.seconds ? tone : ""}` },
      h("span", { class: "tile-name" }, name),
      h("span", { class: "tile-value" }, last.seconds ? some(perMinute(last[what], last.seconds)) : "–",
        h("span", { class: "tile-unit" }, " /min")),
      h("span", { class: "tile-means" }, means))));
}

export function flipsView(rounds, span, width) {
  const total = rounds.sum(span);
  const flips = Object.values(total.causes).reduce((a, b) => a + b, 0);
  const words = SPANS.find(([s]) => s === span)[1];
  return [
    h("div", { class: "flips-head" },
      h("h2", { id: "flips-title" }, "Flip-flops"),
      h("div", { class: "choice", role: "group", "aria-label": "Of the last" }, SPANS.map(([seconds, label]) =>
        h("button", { key: seconds, type: "button", class: "button small", "data-span": seconds, "aria-pressed": seconds === span ? "true" : "false" }, label)))),
    ratesView(rounds),
    h("figure", {},
      picture(rounds, span, width, `${plural(flips, "flip-flop")} in the last ${words}: ${summary(total)}`),
      h("figcaption", {}, flips ? legend(total) : h("p", { class: "quiet" }, `No flip-flops of ${plural(total.requests, "request")} in the last ${duration(total.seconds)}.`))),
    silentView(rounds),
    flips ? inNumbers(rounds, span) : null,
  ];
}

function summary({ causes, requests }) {
  const found = CAUSES.filter(([c]) => causes[c]).map(([c]) => `${c} ${some(causes[c])}`);
  return `${found.join(", ") || "none"}, of ${plural(requests, "request")}`;
}

function legend({ causes }) {
  return h("ul", { class: "legend" }, CAUSES.filter(([c]) => causes[c]).map(([c, means]) =>
    h("li", { key: c },
      h("svg", { class: "swatch", viewBox: "0 0 16 12", "aria-hidden": "true" }, h("rect", { class: `c-${c}`, width: 16, height: 12 }), texture(c, 0, 0, 16, 12)),
      h("strong", {}, c), ` ${some(causes[c])} `, h("span", { class: "quiet" }, means))));
}

function silentView({ silent, edges }) {
  if (!edges) return h("p", { class: "quiet" }, "No edge has been asked yet.");
  if (!silent.length) return null;
  return h("details", { class: "silent" },
    h("summary", {}, icon("warn"), ` ${silent.length} of ${plural(edges, "edge")} cannot be asked: what they count is not in here`),
    h("ul", {}, silent.slice(0, 20).map((s) => h("li", { key: s.edge }, h("strong", {}, s.edge), ": ", s.why)),
      silent.length > 20 ? h("li", { key: "." }, `and ${silent.length - 20} more`) : null));
}

function inNumbers(rounds, span) {
  const minutes = new Map();
  for (const r of rounds.within(span)) {
    const ago = Math.floor((rounds.now - r.end) / 60);
    const row = minutes.get(ago) ?? { fault: 0, back: 0, forced: 0, requests: 0, causes: {} };
    for (const what of ["fault", "back", "forced", "requests"]) row[what] += r[what] ?? 0;
    for (const [c, n] of Object.entries(r.causes ?? {})) row.causes[c] = (row.causes[c] ?? 0) + n;
    minutes.set(ago, row);
  }
  const rows = [...minutes].filter(([, row]) => row.fault + row.back + row.forced > 0).sort(([a], [b]) => a - b);
  return h("details", { class: "numbers" },
    h("summary", {}, "The same in numbers"),
    h("table", {},
      h("thead", {}, h("tr", {}, ["Minutes ago", "Faults", "Back", "Moved", "Requests", "By cause"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, rows.map(([ago, r]) => h("tr", { key: ago },
        h("th", { scope: "row" }, ago ? `${ago} to ${ago + 1}` : "the last"),
        ["fault", "back", "forced", "requests"].map((what) => h("td", { class: "number" }, some(r[what]))),
        h("td", {}, Object.entries(r.causes).map(([c, n]) => `${c} ${some(n)}`).join(", ")))))));
}

// -- the drawing --

const HEIGHT = 236;
const TOP = 34;
const BOTTOM = 168;
const LANE = 194;
const LANE_HEIGHT = 20;
const ENDS = new Set(["switched", "aborted", "rolled_back", "failed"]);

function picture(rounds, span, width, label) {
  const left = 44;
  const right = width - 10;
  const now = rounds.now;
  const x = (at) => Math.round((right - ((now - at) / span) * (right - left)) * 10) / 10;
  const columns = columnsOf(rounds.within(span), span, right - left);
  const before = columns.length ? Math.max(left, x(columns[0].from)) : right;
  const most = roundUp(Math.max(4, ...columns.map((c) => c.rate)));
  const y = (rate) => Math.round((BOTTOM - (rate / most) * (BOTTOM - TOP)) * 10) / 10;
  return h("svg", { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label },
    [0, 1, 2, 3, 4].map((n) => [
      h("line", { class: n ? "grid" : "axis", x1: left, x2: right, y1: y((most * n) / 4), y2: y((most * n) / 4) }),
      h("text", { class: "tick", x: left - 6, y: y((most * n) / 4) + 4, "text-anchor": "end" }, number((most * n) / 4))]),
    h("text", { class: "tick", x: 2, y: 14 }, "a minute"),
    ticks(span).map((ago) => h("text", { class: "tick", x: x(now - ago), y: BOTTOM + 16, "text-anchor": ago ? "middle" : "end" }, ago ? `−${ago / 60} min` : "now")),
    before === right ? null : h("rect", { class: "hidden-part", x: left, y: TOP, width: Math.max(0, before - left), height: BOTTOM - TOP }),
    before - left < 150 ? null : h("text", { class: "tick", x: (left + before) / 2, y: (TOP + BOTTOM) / 2, "text-anchor": "middle" }, "not counted here"),
    silences(columns).map(({ from, to }) => [Math.max(left, x(from)), x(to)]).map(([begins, ends]) => [
      h("rect", { class: "hidden-part", x: begins, y: TOP, width: Math.max(1, ends - begins), height: BOTTOM - TOP }),
      ends - begins < 150 ? null : h("text", { class: "tick", x: (begins + ends) / 2, y: TOP + 16, "text-anchor": "middle" }, "not all counted here")]),
    columns.map((c) => stack(c, x, y)),
    lane(rounds, span, x, left, right));
}

const wide = (x, { from, to }) => Math.max(1, x(to) - x(from) - 1);

/** As many columns as there is room for; each holds whole rounds and stays in its place as time goes on. */
function columnsOf(found, span, room) {
  const size = [5, 10, 15, 30, 60, 120, 300].find((s) => (span / s) * 6 <= room) ?? 300;
  const columns = new Map();
  for (const r of found) {
    const n = Math.floor((r.end - 0.001) / size);
    const c = columns.get(n) ?? { from: r.end - r.seconds, to: r.end, seconds: 0, silent: 0, causes: {} };
    c.to = r.end;
    c.seconds += r.seconds;
    c.silent = Math.max(c.silent, r.silent ?? 0);
    for (const [cause, many] of Object.entries(r.causes ?? {})) c.causes[cause] = (c.causes[cause] ?? 0) + many;
    columns.set(n, c);
  }
  return [...columns.values()].map((c) => ({
    ...c, rate: perMinute(Object.values(c.causes).reduce((a, b) => a + b, 0), c.seconds) }));
}

/** Columns in which an edge was silent, those beside each other as one. */
function silences(columns) {
  const found = [];
  columns.forEach((c, i) => {
    if (!c.silent) return;
    if (columns[i - 1]?.silent) found.at(-1).to = c.to;
    else found.push({ from: c.from, to: c.to });
  });
  return found;
}

function stack(column, x, y) {
  let below = 0;
  return CAUSES.filter(([c]) => column.causes[c]).map(([c]) => {
    const rate = perMinute(column.causes[c], column.seconds);
    const box = [x(column.from), y(below + rate), wide(x, column), Math.max(1, y(below) - y(below + rate))];
    below += rate;
    return [h("rect", { class: `c-${c}`, x: box[0], y: box[1], width: box[2], height: box[3] }), texture(c, ...box)];
  });
}

/** What tells causes apart where colours do not: lines in some of them. */
function texture(cause, left, top, width, height) {
  const [down, across] = { stamp: [4, 4], newer: [3, 0], generation: [0, 4], gone: [6, 0], mixed: [0, 8], unknown: [4, 0], retired: [0, 0] }[cause];
  const d = [];
  if (across) for (let at = top + across / 2; at < top + height; at += across) d.push(`M${left} ${at}h${width}`);
  if (down) for (let at = left + down / 2; at < left + width; at += down) d.push(`M${at} ${top}v${height}`);
  return d.length ? h("path", { class: "texture", d: d.join("") }) : null;
}

/** To a number whose quarters are round. */
export function roundUp(most) {
  for (let ten = 1; ; ten *= 10) {
    for (const n of [1, 2, 3, 5]) if (4 * n * ten >= most) return 4 * n * ten;
  }
}

function ticks(span) {
  const every = span / 5;
  return [0, 1, 2, 3, 4, 5].map((n) => n * every).filter((ago) => ago < span);
}

/** The steps of rollouts as a lane: solid while hosts install, lighter while edges agree, a line up where it ended. */
function lane({ marks, now }, span, x, left, right) {
  const parts = [];
  const words = [];
  marks.forEach((mark, i) => {
    const over = ENDS.has(mark.state);
    const end = over ? mark.at : (marks[i + 1]?.at ?? now);
    if (end < now - span) return;
    const from = Math.max(left, x(mark.at));
    const to = Math.max(from + 2, Math.min(right, x(end)));
    const kind = mark.state === "installing" ? "solid" : over ? "end" : "light";
    const before = marks[i - 1];
    const again = over && before?.state === mark.state && before.rollout === mark.rollout; // it is over, and settled
    if (over && !again) parts.push(h("line", { class: "step-line", x1: from, x2: from, y1: TOP, y2: LANE + LANE_HEIGHT }));
    parts.push(h("rect", { class: `lane ${kind}`, x: from, y: LANE, width: over ? 2 : Math.max(2, to - from - 1), height: LANE_HEIGHT },
      h("title", {}, `rollout ${mark.rollout} of ${mark.build}: ${mark.text}`)));
    const said = { switched: `${mark.build} ✓`, rolling_back: "back", aborted: "aborted", failed: "failed", paused: "paused" }[mark.state];
    if (said && !again) words.push({ from, said: said.length > 18 ? `${said.slice(0, 17)}…` : said });
  });
  return [h("text", { class: "tick", x: left - 6, y: LANE + 14, "text-anchor": "end" }, "rollout"),
    h("rect", { class: "lane-ground", x: left, y: LANE, width: right - left, height: LANE_HEIGHT }), parts, labels(words, left + 50, right)];
}

/** Words above the lines, where there is room; the newest come first to it. */
function labels(words, left, right) {
  let free = right;
  return words.reverse().map(({ from, said }) => {
    const room = 7.5 * said.length + 8;
    const start = Math.min(from, free - room);
    if (start < left || from - start > room) return null;
    free = start;
    return h("text", { class: "step-word", x: start, y: TOP - 6 }, said);
  });
}
