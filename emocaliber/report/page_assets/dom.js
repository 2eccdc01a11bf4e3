"use strict";
// Elements, numbers and the data. A text of the data becomes a text node, never markup.

const byId = (id) => document.getElementById(id);
const SVG_NAMESPACE = byId("an-svg").namespaceURI;
const NONE = "–";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const percent = (value, digits = 2) => (isNumber(value) ? (100 * value).toFixed(digits) : NONE);
const count = (value) => (isNumber(value) ? value.toLocaleString("en") : NONE);
// A stated confidence has no more digits than it needs, and at least two.
const decimal = (value) => {
  if (!isNumber(value)) return NONE;
  const text = String(Math.round(value * 1e4) / 1e4);
  return text.replace(/^(\d+)(?:\.(\d*))?$/, (_, whole, rest = "") => `${whole}.${rest.padEnd(2, "0")}`);
};

const DATA = JSON.parse(byId("content").textContent);
byId("content").remove();

// In the order of the series: the first is in the colour of the text.
const SUMMARIES = [
  { ...DATA.overall, kind: "overall" },
  ...DATA.groups.map((group) => ({ ...group, kind: "group" })),
  ...DATA.tasks.map((task) => ({ ...task, kind: "task" })),
];

const STEPS = ["element", "human", "context", "interaction", "analysis"];
const OUTCOMES = {
  ...(DATA.has_truth
    ? { right: { sign: "✓", name: "right" }, wrong: { sign: "✗", name: "wrong" } }
    : { answered: { sign: "", name: "answered" } }),
  unparsed: { sign: "?", name: "unparsed" },
  failed: { sign: "!", name: "failed" },
};

function outcomeOf(row) {
  if (row.status === "failed" || row.status === "unparsed") return row.status;
  if (!DATA.has_truth) return "answered";
  return row.correct ? "right" : "wrong";
}

let thumbnailTexts = null;

// The thumbnails are the larger part of the file: they are read when the first one is shown.
function thumbnail(row, size) {
  if (thumbnailTexts === null) thumbnailTexts = JSON.parse(byId("thumbnails").textContent);
  const text = row.thumbnail === null ? undefined : thumbnailTexts[row.thumbnail];
  if (text === undefined) return el("span", { class: `picture ${size} empty`, "aria-hidden": "true" });
  const image = el("img", { class: `picture ${size}`, alt: "", decoding: "async" });
  image.src = `data:image/jpeg;base64,${text}`;
  return image;
}

function option(value, text) {
  const node = el("option", {}, text);
  node.value = value;
  return node;
}
