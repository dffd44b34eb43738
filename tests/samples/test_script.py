"""The page's script, run by node with the little of a browser that it touches: does it reload once, and only once?"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "ngapp" / "app" / "app.js"

#: Answers each poll with the next of STATUSES; a reload runs the script again, as PAGES says which build.
BROWSER = """
const [script, pages, statuses] = JSON.parse(require("fs").readFileSync(0));
const elements = {}, storage = {}, pins = [];
let reloads = 0, timers = [];
globalThis.document = {
  getElementById: (id) => elements[id] ??= {replaceChildren() {}, addEventListener() {}, value: ""},
  createElement: () => ({}),
};
globalThis.sessionStorage = {getItem: (k) => storage[k] ?? null, setItem: (k, v) => { storage[k] = v; }};
globalThis.location = {reload() { reloads++; timers = []; setImmediate(load); }};
globalThis.setTimeout = (f) => { timers.push(f); };
globalThis.fetch = async (path, {headers}) => {
  pins.push(headers["x-deployment-id"]);
  return {ok: true, headers: new Map([["x-deployment-status", statuses.shift() ?? "current"]]),
          json: async () => ({build: "?"})};
};
const load = () => eval(script.replace("__BUILD__", JSON.stringify(pages.shift())).replace("__GREETING__", '"hi"'));
load();
(async () => {
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((r) => setImmediate(r));
    timers.splice(0).forEach((f) => f());
  }
  console.log(JSON.stringify({reloads, pins, trouble: elements.trouble.textContent}));
})();
"""


def browse(pages: list[str], statuses: list[str]) -> tuple[int, list[str]]:
    """How often it reloaded, and the pins it sent."""
    given = json.dumps([SCRIPT.read_text(), pages, statuses])
    done = subprocess.run(["node", "-e", BROWSER], input=given, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["trouble"] == ""
    return said["reloads"], said["pins"]


pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def test_it_stays_where_it_is_while_its_build_is_served() -> None:
    reloads, pins = browse(["a"], ["current", "previous", "ramp", "preview", ""])
    assert reloads == 0
    assert set(pins) == {"a"}
    assert len(pins) > 5


def test_it_reloads_when_its_build_is_retired() -> None:
    reloads, pins = browse(["a", "b"], ["current", "retired"])
    assert reloads == 1
    assert (pins[0], pins[-1]) == ("a", "b")


def test_it_does_not_go_round_in_circles() -> None:
    """A cache, or a fleet in disorder, keeps handing out the retired pages."""
    reloads, _ = browse(["a", "b", "a", "b", "a"], ["retired"] * 20)
    assert reloads == 2
