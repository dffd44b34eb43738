// Small drawings beside words, never instead of them.

import { h } from "./dom.js";

const PATHS = {
  done: "M3.5 8.5l3 3 6-7",
  cross: "M4 4l8 8M12 4l-8 8",
  dot: "M8 5.5a2.5 2.5 0 1 0 0 5a2.5 2.5 0 1 0 0-5",
  ring: "M8 4a4 4 0 1 0 0 8a4 4 0 1 0 0-8",
  pause: "M6 4v8M10 4v8",
  play: "M5.5 3.5l6.5 4.5-6.5 4.5z",
  back: "M6 3.5L2.5 7L6 10.5M3 7h6a3.5 3.5 0 0 1 0 7H7",
  skip: "M4.5 8h7",
  warn: "M8 2.5l6 11H2zM8 6.5v3.5M8 12v.3",
  wait: "M8 4.5V8l2.5 1.5M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11",
  up: "M8 13V3.5M4 7.5l4-4 4 4",
};

export function icon(name, extra = "") {
  return h("svg", { class: `icon ${extra}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    h("path", { d: PATHS[name] }));
}
