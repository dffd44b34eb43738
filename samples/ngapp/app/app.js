// The page's own script. Lives on the build it came from: it sends that build's name with every request, and reloads
// when it is told that the build is retired, at most once for each build, so that it can never go round in circles.
"use strict";
(() => {
  const BUILD = __BUILD__;
  const GREETING = __GREETING__;
  const PIN = "x-deployment-id";
  const POLL_MS = 2000;
  const KEY = "ngapp.reloaded";

  const $ = (id) => document.getElementById(id);
  const counts = new Map();

  function reloadOnce() {
    const from = JSON.parse(sessionStorage.getItem(KEY) || "[]");
    if (from.includes(BUILD)) return;
    sessionStorage.setItem(KEY, JSON.stringify([...from, BUILD].slice(-20)));
    location.reload();
  }

  async function ask(path, options = {}) {
    const answer = await fetch(path, { ...options, cache: "no-store", headers: { ...options.headers, [PIN]: BUILD } });
    const status = answer.headers.get("x-deployment-status") || "";
    $("status").textContent = status || "not behind an edge";
    if (status === "retired") reloadOnce();
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  }

  function show(feed) {
    counts.set(feed.build, (counts.get(feed.build) || 0) + 1);
    $("build").textContent = feed.build;
    $("host").textContent = feed.host || "this machine";
    $("slot").textContent = feed.slot || "none";
    $("pid").textContent = feed.pid;
    $("answers").replaceChildren(
      ...[...counts].map(([build, count]) => {
        const item = document.createElement("li");
        item.textContent = `${build}: ${count}`;
        item.className = build === BUILD ? "own" : "foreign";
        return item;
      }),
    );
    $("trouble").textContent = "";
  }

  async function poll() {
    try {
      show(await ask("/api/feed"));
    } catch (error) {
      $("trouble").textContent = String(error.message || error);
    }
    setTimeout(poll, POLL_MS);
  }

  $("greeting").textContent = GREETING;
  $("save").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const saved = await ask("/api/save", { method: "POST", body: $("note").value });
      $("saved").textContent = `${saved.bytes} bytes, taken by build ${saved.build}`;
    } catch (error) {
      $("saved").textContent = String(error.message || error);
    }
  });
  poll();
})();
