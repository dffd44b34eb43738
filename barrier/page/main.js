// Joins everything: the token, the address, the stream, the views. Draws all of it anew with each event; the drawing
// changes only what is different.

import * as api from "./api.js";
import { Dialog } from "./dialog.js";
import { h, sync } from "./dom.js";
import { barriersView, edgesView, hostsView, pastView, planView, servicesView, versionsView } from "./fleet.js";
import { Rounds, flipsView } from "./flips.js";
import { icon } from "./icons.js";
import { rolloutView } from "./rollout.js";
import { forget, keep, takeFromAddress, token } from "./session.js";
import { Stream } from "./stream.js";
import { change, duration, moves, serves, stateOf } from "./words.js";

const byId = (id) => document.getElementById(id);
/** Without word for this long, what is shown is said to be old. The service speaks every two seconds. */
const OLD_MS = 6000;
/** Sentences that the region which is read aloud holds. */
const KEPT = 4;

const state = {
  me: null,
  signIn: null, // why a token is asked for; null: none is
  service: null,
  lines: null,
  overview: null,
  rounds: new Rounds(),
  span: 600,
  stream: null,
  heard: 0, // when it was said last how things are, by this tab's monotonic clock; 0: never
  lost: null, // why the connection is gone
  trouble: null, // the service is there, and cannot know either
  unknown: null, // the service asked for cannot be shown
  toast: null,
  said: [], // what was announced last
};

const dialog = new Dialog(byId("ask"), {
  done: (sentence) => say(sentence),
  me: (me) => {
    state.me = me;
    connect();
    draw();
  },
});

// -- connection --

function connect() {
  state.stream?.close();
  state.stream = null;
  if (!token()) return;
  const query = state.service ? `?service=${encodeURIComponent(state.service)}` : "";
  state.stream = new Stream(`/v1/overview/events${query}`, { event: onEvent, lost: onLost, refused: onRefused });
}

function onEvent(name, value) {
  const wasLost = state.lost !== null || state.trouble !== null;
  if (name !== "trouble") state.heard = performance.now();
  state.lost = null;
  state.trouble = name === "trouble" ? value.detail : null;
  if (name === "services") state.lines = value;
  if (name === "service") {
    const sentence = change(state.overview, value);
    state.overview = value;
    if (sentence) announce(sentence);
  }
  if (name === "flips") state.rounds.take(value);
  if (name === "services" && !state.service && value.length === 1) {
    go(value[0].service, true);
    return;
  }
  if (name === "trouble" ? !wasLost : wasLost) announce(state.trouble ?? "Connected again.");
  draw();
}

function onLost(why) {
  if (state.lost === null) announce(`Disconnected: ${why}.`);
  state.lost = why;
  draw();
}

function onRefused(refused) {
  if (refused.status === 401) signOut(refused.message);
  else {
    state.unknown = refused.message;
    draw();
  }
}

/** How long nothing has come, in milliseconds; Infinity: nothing ever has. */
const silence = () => (state.heard ? performance.now() - state.heard : Infinity);

// -- who --

async function signIn(value, typed = false) {
  try {
    state.me = await api.whoami(value);
  } catch (refused) {
    if (!(refused instanceof api.Refusal)) throw refused;
    if (refused.status === 401 || refused.status === 403) return signOut(refused.message);
    state.signIn = refused.message;
    draw();
    return;
  }
  keep(value);
  state.signIn = null;
  state.unknown = null;
  connect();
  draw();
  if (typed) byId("main").focus(); // the field that had it is gone
}

function signOut(why) {
  forget();
  state.stream?.close();
  Object.assign(state, { me: null, signIn: why, lines: null, overview: null, stream: null, heard: 0, lost: null, trouble: null, unknown: null, rounds: new Rounds() });
  draw();
  byId("token").focus();
}

// -- where --

function go(service, replace = false) {
  const address = service ? `#/${encodeURIComponent(service)}` : "#/";
  if (replace) history.replaceState(null, "", address);
  else location.hash = address;
  arrive();
}

function arrive() {
  const found = /^#\/([a-z0-9-]{1,32})$/.exec(location.hash);
  const service = found ? found[1] : null;
  if (service === state.service && state.stream) return;
  Object.assign(state, { service, overview: null, unknown: null, rounds: new Rounds(), heard: 0 });
  if (state.me) connect();
  draw();
}

// -- drawing --

/** Read aloud, one after the other: what takes milliseconds is over before its order has been said. */
function announce(sentence) {
  state.said = [...state.said, { number: (state.said.at(-1)?.number ?? 0) + 1, sentence }].slice(-KEPT);
  sync(byId("announce"), state.said.map(({ number, sentence }) => h("p", { key: number }, sentence)));
}

let toastTimer;
function say(sentence) {
  state.toast = sentence;
  announce(sentence);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => {
    state.toast = null;
    draw();
  }, 6000);
  draw();
}

function draw() {
  const old = state.me !== null && (state.lost !== null || state.trouble !== null || silence() > OLD_MS);
  const shown = state.heard > 0;
  document.body.classList.toggle("stale", old && shown);
  document.title = title(old);
  sync(byId("services"), navigation());
  sync(byId("connection"), connection(old));
  sync(byId("banner"), banner(old, shown));
  sync(byId("who"), who());
  sync(byId("toast"), state.toast ? h("p", {}, icon("done"), state.toast) : []);
  sync(byId("main"), main());
}

function title(old) {
  if (!state.me) return "Pinrail";
  const { overview } = state;
  const words = [state.service ?? "services"];
  if (old) words.unshift("disconnected");
  else if (overview?.rollout && !overview.rollout.done) {
    words.unshift(overview.rollout.stalled.length ? "stalled" : stateOf(overview.rollout.state).word);
  }
  return `${words.join(": ")} – Pinrail`;
}

function navigation() {
  if (!state.lines) return [];
  const link = (name, href, here, mark) => h("a", { key: name, href, "aria-current": here ? "page" : null }, name, mark);
  return [
    state.lines.length > 1 || !state.service ? link("All services", "#/", !state.service, null) : null,
    state.lines.map((line) => link(line.service, `#/${line.service}`, line.service === state.service,
      line.stalled || line.trouble ? [" ", icon("warn"), h("span", { class: "unseen" }, line.trouble ? "cannot be read" : "stalled")]
        : line.rollout ? [" ", icon("wait"), h("span", { class: "unseen" }, "rollout under way")] : null))];
}

function connection(old) {
  if (!state.me) return [];
  if (!old) return h("span", { class: "pill good" }, icon("dot"), "live");
  if (state.heard === 0 && state.lost === null && state.trouble === null) return h("span", { class: "pill" }, icon("wait"), "connecting");
  return h("span", { class: "pill bad" }, icon("cross"), state.trouble ? "nothing is known" : "disconnected");
}

function banner(old, shown) {
  if (!old || !shown) {
    if (state.lost && state.me) return notice(`No connection: ${state.lost}. Trying again.`);
    if (state.trouble && state.me) return notice(`The service answers, and cannot say: ${state.trouble}.`);
    return [];
  }
  const ago = duration(Math.round(silence() / 1000));
  if (state.trouble) return notice(`The service knows nothing new: ${state.trouble}. What is shown is ${ago} old.`);
  return notice(`Disconnected${state.lost ? ` (${state.lost})` : ""}: last update ${ago} ago. What is shown is from then. Trying again.`);
}

const notice = (text) => h("p", { class: "notice bad" }, icon("warn"), h("span", {}, text));

function who() {
  if (!state.me) return [];
  const { name, role } = state.me;
  return [h("span", { class: "me" }, name, h("span", { class: "role" }, role)),
    h("button", { type: "button", class: "button small", "data-forget": true }, "Forget token")];
}

function main() {
  if (!state.me) return token() && state.signIn === null ? h("p", { class: "quiet lonely" }, "Connecting…") : signInView();
  if (state.unknown) {
    return [h("h1", {}, state.service ?? "Pinrail"), notice(state.unknown), h("p", {}, h("a", { href: "#/" }, "All services"))];
  }
  if (!state.service) {
    return state.lines === null ? h("p", { class: "quiet lonely" }, "Connecting…")
      : [h("h1", {}, "Services"), h("section", { class: "panel", "aria-label": "Services" }, servicesView(state.lines))];
  }
  return state.overview ? serviceView(state.overview) : [h("h1", {}, state.service), h("p", { class: "quiet lonely" }, "Connecting…")];
}

function signInView() {
  return h("form", { class: "panel sign-in", id: "sign-in" },
    h("h1", {}, "Pinrail"),
    h("p", {}, "This page shows what the barrier service knows to whoever has a token. One with the role ", h("code", {}, "read"), " looks; ",
      h("code", {}, "deploy"), " also acts."),
    h("label", { for: "token" }, "Token"),
    h("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
      "aria-describedby": state.signIn ? "sign-in-error token-note" : "token-note" }),
    state.signIn ? h("p", { class: "notice bad", id: "sign-in-error", role: "alert" }, icon("cross"), h("span", {}, state.signIn)) : null,
    h("p", { class: "quiet", id: "token-note" }, "It is kept in this tab until that is closed, and sent to this service only. ",
      h("code", {}, "pinrail token create"), " makes one; ", h("code", {}, "pinrail page"), " knows those of a local fleet."),
    h("button", { type: "submit", class: "button primary" }, "Look"));
}

function panel(id, heading, body, extra = "") {
  return h("section", { class: `panel ${extra}`, key: id, "aria-labelledby": `${id}-title` },
    heading ? h("h2", { id: `${id}-title` }, heading) : null, body);
}

function serviceView(overview) {
  const width = Math.max(270, Math.round(byId("main").clientWidth) - (innerWidth < 700 ? 26 : 42));
  return [
    h("div", { class: "headline", key: "headline" },
      h("h1", {}, overview.service),
      h("p", { class: "lead" }, serves(overview), " ", moves(overview) ?? "Nothing is on its way.")),
    panel("rollout", overview.rollout ? null : "Rollout", rolloutView(overview), overview.rollout && !overview.rollout.done ? "active" : ""),
    h("section", { class: "panel", key: "flips", "aria-labelledby": "flips-title" }, flipsView(state.rounds, state.span, width)),
    h("div", { class: "columns", key: "columns" },
      panel("plan", "Plan", planView(overview)),
      panel("versions", "Versions", versionsView(overview))),
    panel("edges", "Edges", edgesView(overview)),
    panel("hosts", "Hosts", hostsView(overview)),
    panel("barriers", "Barriers", barriersView(overview)),
    overview.past.length ? panel("past", "Past rollouts", pastView(overview)) : null,
  ];
}

// -- events --

document.addEventListener("click", (event) => {
  if (event.target.closest(".skip")) {
    event.preventDefault(); // what is behind the # is the service
    byId("main").focus();
  }
  const found = event.target.closest("button");
  if (!found) return;
  if (found.dataset.act) dialog.open(found.dataset.act, state.overview, state.me, { edge: found.dataset.edge, number: found.dataset.rollout });
  if (found.dataset.span) {
    state.span = Number(found.dataset.span);
    draw();
  }
  if ("forget" in found.dataset) signOut("");
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "sign-in") return;
  event.preventDefault();
  signIn(new FormData(event.target).get("token").trim(), true);
});
addEventListener("hashchange", () => {
  takeFromAddress();
  arrive();
  if (!state.me && token()) signIn(token());
});
addEventListener("online", () => state.stream?.now());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && silence() > OLD_MS) connect(); // the phone was in a pocket
});
let width = 0;
new ResizeObserver(() => {
  if (byId("main").clientWidth !== width) draw();
  width = byId("main").clientWidth;
}).observe(byId("main"));
setInterval(draw, 1000);

takeFromAddress();
arrive();
if (token()) signIn(token());
else state.signIn = "";
draw();
