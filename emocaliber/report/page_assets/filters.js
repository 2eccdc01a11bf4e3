// Which rows are listed, and in what order.

const ROWS = DATA.rows.map((row, position) => ({
  ...row,
  position,
  candidates: DATA.candidate_sets[row.candidates] ?? [],
  outcome: outcomeOf(row),
  reasons: new Set([
    ...(row.label_reason ? [`label:${row.label_reason}`] : []),
    ...(row.confidence_reason ? [`confidence:${row.confidence_reason}`] : []),
    ...row.flags.map((flag) => `flag:${flag}`),
  ]),
}));

const GROUP_TASKS = new Map(DATA.groups.map((group) => [`group:${group.name}`, new Set(group.tasks)]));

let searchTexts = null;

// Made at the first search; lower case of megabytes of text is not for free.
function searchText(row) {
  searchTexts ??= ROWS.map((one) =>
    [one.id, one.truth, one.label, one.error, one.response].filter(Boolean).join("\n").toLowerCase());
  return searchTexts[row.position];
}

// How far the confidence is from the true chance that the answer is right, where that is known.
function truthGap(row) {
  if (!row.posterior || row.confidence === null) return null;
  const chance = row.label === null ? 0 : row.posterior[row.candidates.indexOf(row.label)] ?? 0;
  return Math.abs(row.confidence - chance);
}

const byOptional = (key, sign) => (a, b) => {
  const [x, y] = [key(a), key(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  return sign * (x - y);
};

const confidenceOf = (row) => row.confidence;
const collator = new Intl.Collator("en", { numeric: true });
let idRanks = null;

function idRank(row) {
  if (idRanks === null) {
    idRanks = new Array(ROWS.length);
    [...ROWS].sort((a, b) => collator.compare(a.id, b.id)).forEach((one, rank) => { idRanks[one.position] = rank; });
  }
  return idRanks[row.position];
}

const taskRanks = new Map(DATA.tasks.map(({ name }, rank) => [name, rank]));
const taskRank = (row) => taskRanks.get(row.task) ?? taskRanks.size;

const SORTS = [
  { name: "as in the file", compare: () => 0 },
  ...(DATA.has_truth
    ? [{
      name: "most confident errors first",
      compare: (a, b) => a.correct - b.correct || byOptional(confidenceOf, a.correct ? 1 : -1)(a, b),
    }]
    : []),
  { name: "confidence, high to low", compare: byOptional(confidenceOf, -1) },
  { name: "confidence, low to high", compare: byOptional(confidenceOf, 1) },
  { name: "task", compare: (a, b) => taskRank(a) - taskRank(b) || collator.compare(a.task, b.task) },
  { name: "id", compare: (a, b) => idRank(a) - idRank(b) },
  ...(ROWS.some((row) => row.posterior)
    ? [{ name: "confidence furthest from the truth", compare: byOptional(truthGap, -1) }]
    : []),
];

const NO_FILTER = { text: "", subject: "", label: "", outcome: "", reason: "", low: null, high: null, pair: null, sort: 0 };

const TESTS = {
  text: (filter) => {
    const text = filter.text.trim().toLowerCase();
    return text && ((row) => searchText(row).includes(text));
  },
  subject: ({ subject }) => {
    const tasks = GROUP_TASKS.get(subject);
    return subject && (tasks ? (row) => tasks.has(row.task) : (row) => `task:${row.task}` === subject);
  },
  label: ({ label }) => label && ((row) => (row.label === null ? "none" : `label:${row.label}`) === label),
  reason: ({ reason }) => reason && ((row) => row.reasons.has(reason)),
  confidence: ({ low, high }) => (low !== null || high !== null) &&
    ((row) => row.confidence !== null && row.confidence >= (low ?? 0) && row.confidence <= (high ?? 1)),
  pair: ({ pair }) => pair && ((row) => row.truth === pair.truth && row.label === pair.label),
};

// The rows that pass, sorted, and how many rows of each outcome would pass if any outcome were asked for.
function rowsFor(filter) {
  const tests = Object.values(TESTS).map((make) => make(filter)).filter(Boolean);
  const passing = ROWS.filter((row) => tests.every((test) => test(row)));
  const counts = new Map(Object.keys(OUTCOMES).map((name) => [name, 0]));
  passing.forEach((row) => counts.set(row.outcome, counts.get(row.outcome) + 1));
  const listed = filter.outcome ? passing.filter((row) => row.outcome === filter.outcome) : passing;
  const { compare } = SORTS[filter.sort] ?? SORTS[0];
  return { rows: listed.sort((a, b) => compare(a, b) || a.position - b.position), counts, total: passing.length };
}

// The confidences of a bin [low, high) as the closed range of those that its rows state; 1 is in the last bin.
function rangeOfBin([low, high]) {
  const inside = ROWS.map(confidenceOf).filter((c) => c !== null && c >= low && (c < high || high >= 1));
  return { low, high: inside.length ? inside.reduce((a, b) => Math.max(a, b)) : high };
}
