// Reliability diagrams and the risk-coverage curves, for whatever is chosen.

const chosen = new Set();
const WIDTH = 252;
const PLOT = { left: 34, top: 8, size: 208, gap: 12, histogram: 44 };
const DASHES = ["", "7 3", "2 3", "8 3 2 3"];
// By the place among the lines that are shown, so that up to seven differ in colour; Overall has that of the text.
const lineClass = ({ kind, place }) => `line-${kind === "overall" ? 0 : 1 + (place % 6)}`;
const lineDashes = ({ kind, place }) => (kind === "overall" ? "" : DASHES[place % DASHES.length]);

function choose(showRows) {
  const firsts = SUMMARIES.filter(({ kind }) => kind !== "task").slice(0, 4);
  (firsts.length > 1 ? firsts : SUMMARIES.slice(0, 4)).forEach((summary) => chosen.add(SUMMARIES.indexOf(summary)));
  const draw = () => {
    drawDiagrams(showRows);
    drawRisk();
  };
  const chips = SUMMARIES.map((summary, position) => el("button", {
    type: "button", class: "chip", "aria-pressed": String(chosen.has(position)),
    onclick: (event) => {
      if (!chosen.delete(position)) chosen.add(position);
      event.currentTarget.setAttribute("aria-pressed", String(chosen.has(position)));
      draw();
    },
  }, el("bdi", {}, summary.name)));
  byId("series").append(...chips);
  draw();
}

const chosenSummaries = () => SUMMARIES.map((summary, position) => ({ ...summary, position }))
  .filter(({ position }) => chosen.has(position));

function drawDiagrams(showRows) {
  const figures = chosenSummaries().map((summary) => reliabilityDiagram(summary, showRows));
  byId("diagrams").replaceChildren(...figures);
  if (!figures.length) byId("diagrams").append(el("p", { class: "note" }, "Nothing is chosen."));
}

function reliabilityDiagram(summary, showRows) {
  const { samples, name } = summary;
  const bins = (samples.reliability_bins ?? []).filter((bin) => isNumber(bin.low) && isNumber(bin.high));
  const chance = isNumber(samples.null_ece?.mean) ? ` · by chance ${percent(samples.null_ece.mean)}` : "";
  const heading = el("figcaption", {}, el("b", {}, el("bdi", {}, name)),
    el("span", {}, `ECE ${percent(samples.ece)}${chance}`));
  if (!bins.some((bin) => bin.n)) {
    return el("figure", {}, heading, el("p", { class: "note" }, "No row states a confidence."));
  }
  const height = PLOT.top + PLOT.size + PLOT.gap + PLOT.histogram + 34;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": inWords(name, bins) });
  picture.append(...frame(), ...bands(bins), ...bars(bins), ...histogram(bins), ...hits(bins, summary, showRows));
  return el("figure", {}, heading, picture);
}

const xOf = (value) => PLOT.left + PLOT.size * value;
const yOf = (value) => PLOT.top + PLOT.size * (1 - value);
const BASE = PLOT.top + PLOT.size + PLOT.gap + PLOT.histogram;

function inWords(name, bins) {
  const parts = bins.filter((bin) => bin.n).map((bin) =>
    `${decimal(bin.low)} to ${decimal(bin.high)}: ${count(bin.n)} rows, accuracy ${percent(bin.acc)} %`);
  return `Reliability of ${name}, by confidence. ${parts.join("; ")}`;
}

function frame() {
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return [
    ...ticks.map((tick) => svg("line", { class: "grid", x1: xOf(0), x2: xOf(1), y1: yOf(tick), y2: yOf(tick) })),
    ...ticks.map((tick) => svg("text", { x: xOf(0) - 5, y: yOf(tick) + 3.5, class: "end" }, String(100 * tick))),
    ...[0, 0.2, 0.4, 0.6, 0.8, 1].map((tick) =>
      svg("text", { x: xOf(tick), y: BASE + 13, class: "middle" }, tick === 0 ? "0" : tick === 1 ? "1" : String(tick))),
    svg("line", { class: "axis", x1: xOf(0), x2: xOf(1), y1: BASE, y2: BASE }),
    svg("text", { x: xOf(0.5), y: BASE + 28, class: "middle axis-title" }, "Confidence"),
    svg("text", { class: "middle axis-title", transform: `translate(9 ${yOf(0.5)}) rotate(-90)` }, "Accuracy, %"),
  ];
}

function bands(bins) {
  const known = bins.filter((bin) => isNumber(bin.null_low) && isNumber(bin.null_high));
  return [
    ...known.map((bin) => svg("rect", {
      class: "band", x: xOf(bin.low), width: PLOT.size * (bin.high - bin.low),
      y: yOf(bin.null_high), height: Math.max(1, PLOT.size * (bin.null_high - bin.null_low)),
    })),
    svg("line", { class: "diagonal", x1: xOf(0), y1: yOf(0), x2: xOf(1), y2: yOf(1) }),
  ];
}

function bars(bins) {
  const filled = bins.filter((bin) => bin.n && isNumber(bin.acc));
  return [
    ...filled.map((bin) => svg("rect", {
      class: "bar-accuracy", x: xOf(bin.low) + 1, width: PLOT.size * (bin.high - bin.low) - 2,
      y: yOf(bin.acc), height: PLOT.size * bin.acc,
    })),
    ...filled.map((bin) => svg("line", {
      class: "bar-top", x1: xOf(bin.low) + 1, x2: xOf(bin.high) - 1, y1: yOf(bin.acc), y2: yOf(bin.acc),
    })),
    ...filled.filter((bin) => isNumber(bin.mean_confidence)).map((bin) =>
      svg("circle", { class: "dot", cx: xOf(bin.mean_confidence), cy: yOf(bin.acc), r: 3.2 })),
  ];
}

function histogram(bins) {
  const most = Math.max(...bins.map((bin) => bin.n || 0));
  return bins.filter((bin) => bin.n).flatMap((bin) => {
    const height = Math.max(1, (PLOT.histogram - 10) * (bin.n / most));
    const middle = xOf((bin.low + bin.high) / 2);
    return [
      svg("rect", {
        class: "bar-count", x: xOf(bin.low) + 1, width: PLOT.size * (bin.high - bin.low) - 2, y: BASE - height, height,
      }),
      svg("text", { x: middle, y: BASE - height - 2, class: "middle small" }, String(bin.n)),
    ];
  });
}

// One invisible column a bin: it says its numbers, and a click lists its rows.
function hits(bins, summary, showRows) {
  return bins.filter((bin) => bin.n).map((bin) => svg("rect", {
    class: "hit", x: xOf(bin.low), width: PLOT.size * (bin.high - bin.low), y: PLOT.top, height: BASE - PLOT.top,
    onclick: () => showRows({ subject: subjectOf(summary), bin: [bin.low, bin.high] }),
  }, svg("title", {}, `${decimal(bin.low)} to ${decimal(bin.high)}: ${count(bin.n)} rows\naccuracy ${percent(bin.acc)} %\n` +
    `mean confidence ${percent(bin.mean_confidence)} %`)));
}

const subjectOf = (summary) => (summary.kind === "overall" ? "" : `${summary.kind}:${summary.name}`);

const RISK = { width: 640, height: 320, left: 44, right: 12, top: 10, bottom: 38 };

function curveOf(samples) {
  return (samples.risk_coverage ?? []).filter((point) => isNumber(point?.coverage) && isNumber(point?.risk))
    .sort((a, b) => a.coverage - b.coverage);
}

function drawRisk() {
  const known = chosenSummaries().map((summary) => ({ ...summary, curve: curveOf(summary.samples) }))
    .filter(({ curve }) => curve.length);
  const others = known.filter(({ kind }) => kind !== "overall");
  const lines = known.map((line) => ({ ...line, place: others.indexOf(line) }));
  if (!lines.length) {
    byId("risk").replaceChildren(el("p", { class: "note" }, "No risk-coverage curve is known for what is chosen."));
    return;
  }
  const most = Math.max(0.05, ...lines.flatMap(({ curve }) => curve.map((point) => point.risk)));
  const step = most > 0.5 ? 0.2 : most > 0.2 ? 0.1 : most > 0.1 ? 0.05 : 0.02;
  const top = Math.min(1, Math.ceil(most / step - 1e-9) * step);
  const x = (value) => RISK.left + (RISK.width - RISK.left - RISK.right) * value;
  const y = (value) => RISK.height - RISK.bottom - (RISK.height - RISK.top - RISK.bottom) * (value / top);
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step);
  const words = lines.map(({ name, curve }) => `${name}: ${percent(curve.at(-1).risk)} % at ${percent(curve.at(-1).coverage)} %`);
  const picture = svg("svg", {
    viewBox: `0 0 ${RISK.width} ${RISK.height}`, role: "img", "aria-label": `Risk at full coverage. ${words.join("; ")}`,
  },
  ticks.flatMap((tick) => [
    svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(tick), y2: y(tick) }),
    svg("text", { x: x(0) - 6, y: y(tick) + 3.5, class: "end" }, String(Math.round(100 * tick))),
  ]),
  [0, 0.2, 0.4, 0.6, 0.8, 1].map((tick) =>
    svg("text", { x: x(tick), y: RISK.height - RISK.bottom + 15, class: "middle" }, String(Math.round(100 * tick)))),
  svg("text", { x: x(0.5), y: RISK.height - 6, class: "middle axis-title" }, "Coverage, %"),
  svg("text", { class: "middle axis-title", transform: `translate(11 ${y(top / 2)}) rotate(-90)` }, "Risk, %"),
  lines.map((line) => svg("polyline", {
    class: `curve ${lineClass(line)}`, "stroke-dasharray": lineDashes(line),
    points: line.curve.map((point) => `${x(point.coverage).toFixed(1)},${y(point.risk).toFixed(1)}`).join(" "),
  })));
  const legend = riskLegend(lines);
  const cursor = svg("line", { class: "cursor", y1: RISK.top, y2: RISK.height - RISK.bottom });
  picture.append(cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) * (RISK.width / box.width) - x(0)) / (x(1) - x(0));
    const coverage = Math.min(1, Math.max(0, at));
    cursor.setAttribute("x1", x(coverage));
    cursor.setAttribute("x2", x(coverage));
    picture.classList.add("pointed");
    legend.showAt(coverage);
  });
  picture.addEventListener("pointerleave", () => {
    picture.classList.remove("pointed");
    legend.showAt(null);
  });
  byId("risk").replaceChildren(picture, legend.node);
}

function riskLegend(lines) {
  const head = el("th", { scope: "col" });
  const cells = lines.map(() => el("td"));
  const swatch = (line) => svg("svg", { viewBox: "0 0 30 8", class: "swatch", "aria-hidden": "true" },
    svg("line", { class: `curve ${lineClass(line)}`, "stroke-dasharray": lineDashes(line), x1: 0, x2: 30, y1: 4, y2: 4 }));
  const node = el("table", { class: "legend" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Line"), head, el("th", { scope: "col" }, "AURC"))),
    el("tbody", {}, lines.map((line, i) => el("tr", {},
      el("th", { scope: "row" }, swatch(line), el("bdi", {}, line.name)), cells[i],
      el("td", {}, percent(line.samples.aurc))))));
  const showAt = (coverage) => {
    head.textContent = coverage === null ? "Risk at the end" : `Risk @ ${percent(coverage, 0)}`;
    lines.forEach(({ curve }, i) => {
      cells[i].textContent = percent(coverage === null ? curve.at(-1).risk : riskAt(curve, coverage));
    });
  };
  showAt(null);
  return { node, showAt };
}

// Of equally confident rows any may be kept, so the errors grow evenly with the coverage between two points.
function riskAt(curve, coverage) {
  const next = curve.findIndex((point) => point.coverage >= coverage - 1e-9);
  if (next < 0) return null;
  if (next === 0) return curve[0].risk;
  const [a, b] = [curve[next - 1], curve[next]];
  const share = Math.min(1, (coverage - a.coverage) / (b.coverage - a.coverage));
  const errors = a.risk * a.coverage + share * (b.risk * b.coverage - a.risk * a.coverage);
  return errors / Math.min(coverage, b.coverage);
}
