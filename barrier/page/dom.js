// Makes and updates elements from plain descriptions. Values become text or attributes, never markup: there is no
// way through here to innerHTML, an inline handler or an inline style. What stays the same stays the same node, so
// that an update takes neither the focus nor a selection away.

const SVG = "http://www.w3.org/2000/svg";

/** A description of an element. Children: descriptions, strings, numbers; lists are flattened, null and false left out. */
export function h(tag, attributes, ...children) {
  const { key, ...rest } = attributes ?? {};
  for (const name of Object.keys(rest)) {
    if (name.startsWith("on") || name === "style") throw new Error(`no ${name} here`);
  }
  return { tag, key: key == null ? null : String(key), attributes: rest, children: children.flat(Infinity) };
}

/** Make the children of `parent` what `wanted` describes. */
export function sync(parent, wanted) {
  const list = [wanted].flat(Infinity).filter((w) => w != null && w !== false && w !== "");
  const svg = parent.namespaceURI === SVG;
  let at = parent.firstChild;
  for (const each of list) {
    const found = match(at, each);
    if (found === null) {
      parent.insertBefore(make(each, svg), at);
    } else {
      while (at !== found) at = drop(at);
      if (typeof each === "object") update(found, each);
      else if (found.data !== String(each)) found.data = String(each);
      at = found.nextSibling;
    }
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** The first node from `at` on that can become `wanted`. */
function match(at, wanted) {
  for (let node = at; node; node = node.nextSibling) {
    if (typeof wanted !== "object") {
      if (node.nodeType === Node.TEXT_NODE) return node;
      return null;
    }
    if (node.nodeType === Node.ELEMENT_NODE && node.localName === wanted.tag && keyOf(node) === wanted.key) return node;
    if (wanted.key === null && keyOf(node) !== null) return null;
  }
  return null;
}

const keyOf = (node) => node.pinrailKey ?? null;

function make(wanted, svg) {
  if (typeof wanted !== "object") return document.createTextNode(String(wanted));
  const node = svg || wanted.tag === "svg" ? document.createElementNS(SVG, wanted.tag) : document.createElement(wanted.tag);
  node.pinrailKey = wanted.key;
  update(node, wanted);
  return node;
}

function update(node, { attributes, children }) {
  for (const { name } of [...node.attributes]) {
    if (attributes[name] == null || attributes[name] === false) {
      if (name !== "open") node.removeAttribute(name); // a person opens and closes details
    }
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
  sync(node, children);
}
