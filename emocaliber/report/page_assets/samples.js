// The sample browser: filters, a list that draws only what is in view, and the card of the selected row.

const ROW_HEIGHT = 58; // as in the style
const SPARE_ROWS = 6;

const hasOneTask = !DATA.has_truth && DATA.tasks.length === 1;

let filter = { ...NO_FILTER };
let found = { rows: [], counts: new Map(), total: 0 };
let selected = 0; // position in found.rows

function drawSamples() {
  byId("filter-task").append(option("", "all"), ...["group", "task"].flatMap((kind) => {
    const names = SUMMARIES.filter((summary) => summary.kind === kind).map(({ name }) => name);
    const nodes = names.map((name) => option(`${kind}:${name}`, name));
    return names.length ? [el("optgroup", { label: kind === "group" ? "Groups" : "Tasks" }, nodes)] : [];
  }));
  byId("filter-task").parentElement.hidden = hasOneTask;
  const labels = new Map();
  ROWS.forEach(({ label }) => labels.set(label, (labels.get(label) ?? 0) + 1));
  const named = [...labels].filter(([label]) => label !== null).sort(([a], [b]) => collator.compare(a, b));
  byId("filter-label").append(option("", "any"), ...named.map(([label, number]) =>
    option(`label:${label}`, `${label} (${number})`)));
  if (labels.has(null)) byId("filter-label").append(option("none", `none (${labels.get(null)})`));
  const reasons = new Map();
  ROWS.forEach((row) => row.reasons.forEach((reason) => reasons.set(reason, (reasons.get(reason) ?? 0) + 1)));
  byId("filter-reason").append(option("", "any"), ...[...reasons].sort(([a], [b]) => collator.compare(a, b))
    .map(([reason, number]) => option(reason, `${reason.replace(":", ": ")} (${number})`)));
  byId("sort").append(...SORTS.map(({ name }, position) => option(position, name)));
  listenToFilters();
  listenToList();
  listenToKeys();
  apply({});
}

const numberIn = (input) => (input.value === "" || !isNumber(input.valueAsNumber) ? null : input.valueAsNumber);

function listenToFilters() {
  const form = byId("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => apply({
    text: byId("search").value,
    subject: byId("filter-task").value,
    label: byId("filter-label").value,
    reason: byId("filter-reason").value,
    low: numberIn(byId("confidence-low")),
    high: numberIn(byId("confidence-high")),
    sort: Number(byId("sort").value),
  }));
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    apply(NO_FILTER);
  });
}

// Change the filter, put it into the controls, and show what it finds.
function apply(change) {
  filter = { ...filter, ...change };
  const values = {
    search: filter.text, "filter-task": filter.subject, "filter-label": filter.label, "filter-reason": filter.reason,
    sort: String(filter.sort),
  };
  for (const [id, value] of Object.entries(values)) if (byId(id).value !== value) byId(id).value = value;
  for (const [id, value] of [["confidence-low", filter.low], ["confidence-high", filter.high]]) {
    if (numberIn(byId(id)) !== value) byId(id).value = value ?? "";
  }
  found = rowsFor(filter);
  drawOutcomes();
  drawPair();
  drawFound();
  byId("rows").style.height = `${found.rows.length * ROW_HEIGHT}px`;
  byId("list").scrollTop = 0;
  select(0);
}

// From a table or a chart: these rows and no others, in the list before the reader's eyes.
function showRows({ bin, ...wanted }) {
  apply({ ...NO_FILTER, sort: filter.sort, ...wanted, ...(bin ? rangeOfBin(bin) : {}) });
  byId("samples").scrollIntoView();
  byId("list").focus({ preventScroll: true });
}

function drawOutcomes() {
  const chip = (value, text, number) => el("button", {
    type: "button", class: `chip ${value}`, "aria-pressed": String(filter.outcome === value), "data-outcome": value || "all",
    onclick: () => {
      apply({ outcome: value });
      byId("outcomes").querySelector("[aria-pressed=true]").focus();
    },
  }, text, el("span", { class: "number" }, count(number)));
  byId("outcomes").replaceChildren(chip("", "all", found.total), ...Object.entries(OUTCOMES).map(([value, { sign, name }]) =>
    chip(value, `${sign} ${name}`.trim(), found.counts.get(value))));
}

function drawPair() {
  const node = byId("pairs");
  node.replaceChildren();
  if (!filter.pair) return;
  const { truth, label } = filter.pair;
  node.append(el("button", { type: "button", class: "chip pair", onclick: () => apply({ pair: null }) },
    el("bdi", {}, `truth ${truth}, answer ${label ?? "none"}`), el("span", { "aria-label": "remove" }, " ×")));
}

function drawFound() {
  const rows = found.rows;
  const stated = rows.filter((row) => row.confidence !== null);
  const mean = (list, key) => (list.length ? list.reduce((sum, row) => sum + key(row), 0) / list.length : null);
  const accuracy = mean(rows, (row) => Number(row.correct));
  const parts = [`${count(rows.length)} of ${count(ROWS.length)} rows`];
  if (rows.length && DATA.has_truth) parts.push(`accuracy ${percent(accuracy)} %`);
  if (stated.length) parts.push(`mean confidence ${percent(mean(stated, confidenceOf))} %`);
  byId("found").textContent = parts.join(" · ");
}

function listenToList() {
  const list = byId("list");
  let waiting = false;
  list.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      drawList();
    });
  });
  list.addEventListener("click", (event) => {
    const line = event.target.closest("[data-place]");
    if (line) select(Number(line.dataset.place));
  });
  new ResizeObserver(drawList).observe(list);
}

function drawList() {
  const list = byId("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
  const last = Math.min(found.rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
  const lines = [];
  for (let place = first; place < last; place += 1) lines.push(listLine(found.rows[place], place));
  byId("rows").replaceChildren(...lines);
  const isDrawn = selected >= first && selected < last;
  if (isDrawn) list.setAttribute("aria-activedescendant", `sample-${selected}`);
  else list.removeAttribute("aria-activedescendant");
}

function listLine(row, place) {
  const outcome = OUTCOMES[row.outcome];
  const line = el("div", {
    class: "line", role: "option", id: `sample-${place}`, "data-place": place,
    "aria-selected": String(place === selected), "aria-posinset": place + 1, "aria-setsize": found.rows.length,
  },
  thumbnail(row, "tiny"),
  el("span", { class: "what" },
    el("span", { class: "answer" }, answerText(row)),
    el("span", { class: "which" }, hasOneTask || row.id.includes(row.task) ? null : [el("bdi", {}, row.task), " · "], el("bdi", {}, row.id))),
  el("span", { class: `mark ${row.outcome}`, title: outcome.name, "aria-label": outcome.name }, outcome.sign),
  el("span", { class: "confidence" }, decimal(row.confidence)));
  line.style.top = `${place * ROW_HEIGHT}px`;
  return line;
}

function answerText(row) {
  if (row.outcome === "right" || row.outcome === "answered") return el("bdi", {}, row.label ?? NONE);
  const answer = row.label ?? (row.outcome === "failed" ? "failed" : "no answer");
  // Without a truth there is room for the type of the error.
  if (!DATA.has_truth) return el("span", { class: "instead" }, el("bdi", {}, row.error?.split(":", 1)[0] || answer));
  return [el("bdi", {}, answer), el("span", { class: "instead" }, " truth ", el("bdi", {}, row.truth ?? NONE))];
}

function select(place) {
  selected = Math.min(Math.max(place, 0), Math.max(found.rows.length - 1, 0));
  const list = byId("list");
  const top = selected * ROW_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  drawList();
  const row = found.rows[selected];
  byId("card").replaceChildren(...(row ? cardOf(row) : [el("p", { class: "note" }, "No row passes these filters.")]));
  byId("card").scrollTop = 0;
}

function cardOf(row) {
  const outcome = OUTCOMES[row.outcome];
  const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("span", { class: row.outcome }));
  meter.firstChild.style.width = `${100 * (row.confidence ?? 0)}%`;
  const reasons = [...row.reasons].map((reason) => el("span", { class: "tag" }, reason.replace(":", ": ")));
  return [
    el("header", {},
      thumbnail(row, "large"),
      el("div", {},
        el("p", { class: "verdict" }, el("span", { class: `mark ${row.outcome}` },
          `${outcome.sign} ${outcome.name}`.trim()),
          reasons),
        el("dl", { class: "facts" },
          el("dt", {}, "Answer"), el("dd", { class: "said" }, el("bdi", {}, row.label ?? NONE)),
          DATA.has_truth ? [el("dt", {}, "Truth"), el("dd", {}, el("bdi", {}, row.truth ?? NONE))] : null,
          el("dt", {}, "Confidence"), el("dd", {}, decimal(row.confidence), meter),
          el("dt", {}, "Task"), el("dd", {}, el("bdi", {}, row.task)),
          el("dt", {}, "Id"), el("dd", {}, el("bdi", {}, row.id)),
          row.image ? [el("dt", {}, "Image"), el("dd", {}, el("bdi", {}, row.image))] : null))),
    row.error === null ? null : el("p", { class: "error" }, el("bdi", {}, row.error)),
    el("div", { class: "columns" }, reasoningOf(row), candidatesOf(row)),
    row.response === null ? null : el("details", {}, el("summary", {}, "Raw response"), el("pre", { dir: "auto" }, row.response)),
  ].filter(Boolean);
}

function reasoningOf(row) {
  const steps = STEPS.map((name, i) => ({ name, place: row.steps?.[i] }));
  if (!steps.some(({ place }) => place)) {
    return el("p", { class: "note" }, row.response === null ? "There is no response." : "No step of the reasoning was found.");
  }
  return el("ol", { class: "steps" }, steps.map(({ name, place }) => el("li", {}, el("h4", {}, name),
    el("p", { dir: "auto" }, place ? row.response.slice(...place) : NONE))));
}

// The candidates; where the true distribution is known, each with its probability as a bar.
function candidatesOf(row) {
  const lines = row.candidates.map((name, i) => {
    const notes = [name === row.label ? "answer" : "", name === row.truth ? "truth" : ""].filter(Boolean);
    const line = el("li", { class: notes.join(" ") }, el("bdi", {}, name), el("small", {}, notes.join(", ")));
    if (row.posterior) {
      const bar = el("span", { class: "share", "aria-hidden": "true" }, el("span"));
      bar.firstChild.style.width = `${100 * (row.posterior[i] ?? 0)}%`;
      line.append(bar, el("span", { class: "number" }, percent(row.posterior[i], 1)));
    }
    return line;
  });
  return el("div", {}, el("h4", {}, row.posterior ? "Candidates and their true probability, %" : "Candidates"),
    el("ul", { class: row.posterior ? "candidates known" : "candidates" }, lines));
}
