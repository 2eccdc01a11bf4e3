// The facts of the run and every table of numbers.

const score = (key, title, help, more = {}) => ({ key, title, help, ...more });

const TABLES = [
  {
    caption: "Accuracy and calibration",
    columns: [
      score("acc", "Acc", "Share of all rows that are answered right."),
      score("f1", "F1", "F1 of each label, weighted by how often it is true."),
      score("ece", "ECE", "Expected calibration error: mean distance of accuracy and confidence over ten equal bins, \
weighted by their rows."),
      score("null_ece", "ECE by chance", "What a perfectly calibrated model with the same confidences would show \
by chance: the mean, and the value that it exceeds once in 20 times. An ECE below that is no evidence of miscalibration."),
      score("brier", "Brier", "Mean squared distance of the confidence from 1 (right) or 0 (wrong)."),
      score("auroc", "ROC AUC", "Chance that a right answer is stated more confidently than a wrong one."),
    ],
  },
  {
    caption: "Calibration without fixed bins, and the parts of the Brier score",
    columns: [
      score("ece_equal_mass", "ECE, equal mass", "ECE over bins that hold equally many rows."),
      score("ece_debiased", "ECE, debiased", "Calibration error less what chance adds to it."),
      score("smooth_ece", "Smooth ECE", "Calibration error of a kernel-smoothed accuracy; no bins."),
      score("brier_miscalibration", "Miscalibration", "The part of the Brier score that recalibration would remove."),
      score("brier_discrimination", "Discrimination", "The part that telling right from wrong earns; more is better."),
      score("brier_uncertainty", "Uncertainty", "Acc (1 − Acc) of the rows. Brier = miscalibration − discrimination + \
uncertainty."),
    ],
  },
  {
    caption: "Selective prediction",
    columns: [
      score("average_precision", "AP", "Average precision of the confidence as a detector of right answers."),
      score("aurc", "AURC", "Area under the risk-coverage curve: mean error rate over all coverages."),
      score("eaurc", "E-AURC", "AURC above that of a perfect ordering with the same accuracy."),
      score("augrc", "AUGRC", "Area under the generalised risk-coverage curve: mean share of rows that are kept and wrong."),
      ...[50, 70, 90].map((share) =>
        score(`risk_at_coverage_${share}`, `Risk @ ${share}`, `Error rate of the most confident ${share} %.`)),
      ...[5, 10, 20].map((risk) =>
        score(`coverage_at_risk_${risk}`, `Coverage @ ${risk}`, `Largest share of rows with an error rate up to ${risk} %.`)),
    ],
  },
];

const TRUTH_COLUMNS = [
  score("bayes_acc", "Bayes acc", "Expected accuracy of always naming the most probable label."),
  score("acc", "Acc", "Accuracy over the rows whose label distribution is known."),
  score("acc_over_bayes", "Acc / Bayes acc", "What was reached of what can be."),
  score("mean_abs_confidence_minus_posterior", "Confidence gap", "Mean distance of the confidence from the true \
probability of the answer."),
];

function scoreCell(source, column) {
  const value = source?.[column.key];
  if (column.key === "null_ece") {
    if (!value || !isNumber(value.mean)) return el("td", {}, NONE);
    const limit = isNumber(value.p95) ? el("span", { class: "interval" }, `95 %: ≤ ${percent(value.p95)}`) : null;
    return el("td", {}, percent(value.mean), limit);
  }
  const interval = source?.intervals?.[column.key];
  const known = Array.isArray(interval) && interval.every(isNumber);
  const range = known ? `[${percent(interval[0])}, ${percent(interval[1])}]` : null;
  return el("td", {}, percent(value), range && el("span", { class: "interval" }, range));
}

function table(caption, head, bodies, attributes = {}) {
  return el("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": caption },
    el("table", attributes, el("caption", {}, caption), el("thead", {}, head),
      bodies.filter((rows) => rows.length).map((rows) => el("tbody", {}, rows))));
}

const columnHead = (column) => el("th", { scope: "col", title: column.help }, column.title);
const rowHead = (name, note) =>
  el("th", { scope: "row" }, el("bdi", {}, name), note ? el("span", { class: "interval" }, note) : null);

function pooledLines(summary, line) {
  const number = summary.tasks.length;
  const mean = number ? `mean of ${number} task${number === 1 ? "" : "s"}` : "mean of the tasks";
  // A mean over tasks is not over rows.
  return [line(summary.name, "all rows together", summary.samples), line(summary.name, mean, summary.task_mean, "")];
}

function scoreTable({ caption, columns }) {
  const line = (name, note, source, rows = count(source?.n)) =>
    el("tr", {}, rowHead(name, note), columns.map((column) => scoreCell(source, column)), el("td", {}, rows));
  const head = el("tr", {}, el("th", { scope: "col" }, "Task / group"), columns.map(columnHead),
    el("th", { scope: "col" }, "Rows"));
  return table(caption, head, [
    DATA.tasks.map((task) => line(task.name, null, task.samples)),
    DATA.groups.flatMap((group) => pooledLines(group, line)),
    pooledLines(DATA.overall, line),
  ], { class: "scores" });
}

function truthTable() {
  const known = SUMMARIES.filter((summary) => summary.samples.truth);
  if (!known.length) return null;
  const line = ({ name, samples }) => {
    const truth = samples.truth;
    return el("tr", {}, rowHead(name), TRUTH_COLUMNS.map((column) => scoreCell(truth, column)),
      el("td", {}, count(truth.n)));
  };
  const of = (kind) => known.filter((summary) => summary.kind === kind).map(line);
  const head = el("tr", {}, el("th", { scope: "col" }, "Task / group"), TRUTH_COLUMNS.map(columnHead),
    el("th", { scope: "col" }, "Rows"));
  return table("Against the true label distributions", head, [of("task"), of("group"), of("overall")], { class: "scores" });
}

const COLUMN = Object.fromEntries(TABLES.flatMap((one) => one.columns).map((column) => [column.key, column]));
const IN_TASKS = score("auroc_within_tasks", "ROC AUC in tasks", "Mean of the tasks' ROC AUCs.");
const CONFIDENCE_COLUMNS = [
  ...["acc", "ece", "smooth_ece", "brier", "auroc"].map((key) => COLUMN[key]), IN_TASKS, COLUMN.augrc,
];

function confidencesTable() {
  if (!DATA.confidences.length) return null;
  const line = (rows) => ({ title, samples }) =>
    el("tr", {}, rowHead(rows.name), el("td", {}, title), CONFIDENCE_COLUMNS.map((column) => scoreCell(samples, column)),
      el("td", {}, count(rows.n)));
  const head = el("tr", {}, el("th", { scope: "col" }, "Task / group"), el("th", { scope: "col" }, "Confidence"),
    CONFIDENCE_COLUMNS.map(columnHead), el("th", { scope: "col" }, "Rows"));
  const bodies = DATA.confidences.map((rows) => rows.confidences.map(line(rows)));
  return table("Confidences compared, on the rows that have all of them", head, bodies, { class: "scores" });
}

function drawScores() {
  byId("score-tables").append(...TABLES.map(scoreTable));
  const [confidences, truth] = [confidencesTable(), truthTable()];
  if (confidences) byId("score-tables").append(confidences);
  if (truth) byId("score-tables").append(truth);
  const columns = [...TABLES.flatMap((one) => one.columns), ...(confidences ? [IN_TASKS] : []),
    ...(truth ? TRUTH_COLUMNS.filter((c) => c.key !== "acc") : [])];
  byId("glossary").append(el("dl", {}, columns.flatMap(({ title, help }) => [el("dt", {}, title), el("dd", {}, help)])));
}

function drawRun() {
  const { n, answered, unparsed, failed } = DATA.overall.samples;
  byId("counts").append(el("p", { class: "equation" }, el("b", {}, count(n)), " rows = ", el("b", {}, count(answered)),
    " answered + ", el("b", {}, count(unparsed)), " unparsed + ", el("b", {}, count(failed)), " failed"));
  byId("facts").append(...DATA.facts.flatMap(([name, text]) =>
    [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, el("bdi", {}, text))]));
  byId("warnings").append(...DATA.warnings.map((text) => el("p", { class: "warning" }, text.replace(/^warning: /, ""))));
}

const ACCOUNTS = [
  ["n", "Rows"], ["answered", "Answered"], ["unparsed", "Unparsed"], ["failed", "Failed"],
  ["n_with_confidence", "With a confidence"], ["n_unparsed_with_confidence", "of these unparsed"],
];

// A reason is the beginning of the error of its rows; some rows failed without an error of their own.
function failedBecause(reason) {
  const text = reason.replace(/…$/, "");
  const isSaid = ROWS.some((row) => row.outcome === "failed" && searchText(row).includes(text.toLowerCase()));
  return { outcome: "failed", text: isSaid ? text : "" };
}

const REASONS = [
  { key: "unparsed_reasons", title: "Unparsed", filter: (reason) => ({ outcome: "unparsed", reason: `label:${reason}` }) },
  { key: "failed_reasons", title: "Failed", filter: failedBecause },
  {
    key: "no_confidence_reasons", title: "No confidence",
    filter: (reason) => (reason === "failed" ? { outcome: "failed" } : { reason: `confidence:${reason}` }),
  },
  { key: "flags", title: "Flag", filter: (flag) => ({ reason: `flag:${flag}` }) },
];

function drawAccounts(showRows) {
  const line = ({ name, samples }) =>
    el("tr", {}, rowHead(name), ACCOUNTS.map(([key]) => el("td", { class: samples[key] ? "" : "zero" }, count(samples[key]))));
  const head = el("tr", {}, el("th", { scope: "col" }, "Task"), ACCOUNTS.map(([, title]) => el("th", { scope: "col" }, title)));
  byId("accounts").append(table("Rows by outcome", head, [DATA.tasks.map(line), [line(DATA.overall)]]));
  const bodies = REASONS.map((kind) => Object.keys(DATA.overall.samples[kind.key] ?? {}).map((reason) => {
    const cell = ({ samples }) => {
      const number = samples[kind.key]?.[reason];
      return el("td", { class: number ? "" : "zero" }, number ? count(number) : "·");
    };
    const show = el("button", { type: "button", class: "link", onclick: () => showRows(kind.filter(reason)) }, el("bdi", {}, reason));
    return el("tr", {}, el("th", { scope: "row" }, el("span", { class: "kind" }, kind.title), show),
      cell(DATA.overall), DATA.tasks.map(cell));
  }));
  if (!bodies.some((rows) => rows.length)) {
    byId("accounts").append(el("p", { class: "note" }, "No reasons and no flags: every row was read as it was asked for."));
    return;
  }
  const names = el("tr", {}, el("th", { scope: "col" }, "Reason or flag"), el("th", { scope: "col" }, "All"),
    DATA.tasks.map((task) => el("th", { scope: "col" }, el("bdi", {}, task.name))));
  byId("accounts").append(table("Reasons and flags (a click lists the rows)", names, bodies));
}
