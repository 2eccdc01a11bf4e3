"""The `paper` protocol: the published evaluator's arithmetic, faults included, to reproduce its numbers.

For comparison only; the `default` protocol is what is right. What is known of the published evaluator:
- The label of a row is the first candidate, in list order, that occurs as a substring of the lower-cased
  `<answer>` (matched on one line; without a match, of the whole response), else `unknown`. Task and group
  numbers use it. Overall scans the whole response, reasoning included.
- A confidence is `float()` of the `<confidence>` tag. Where that fails the row is left out of every number of
  metric_conf.log except #Samples. A value above 1 becomes 1.
- ECE has ten bins `low <= c < high` on float edges: 1.0 is in no bin, 0.3, 0.6 and 0.7 are one bin low.
- Tasks and Overall have no ECE, Brier and ROC AUC.

What is not known, and how it is read here: tags are matched as written, the first of each counts, also inside
the reasoning, and the confidence, too, on one line; an answer tag that names no candidate is `unknown`,
without a scan; `nan` does not parse, a value below 0 becomes 0; the truth counts in the spelling of the
candidates; thresholds are the floats 0.1 ... 0.9, compared by `c >= t`, and coverage is a share of the rows
with a confidence; a score over no rows, or a ROC AUC of right or of wrong answers alone, is N/A. A row
without a response, which the published evaluator never meets, is `unknown` and has no confidence.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

from emocaliber.report import tables
from emocaliber.report.tables import OVERALL, TaskSet, percent, short_name, task_sets
from emocaliber.scoring import ScoredRow, response_of

UNKNOWN = "unknown"

ROW_FAULTS = {
    "whole_response_scan": "Overall scans the whole response, reasoning included, and finds another label",
    "substring": "the label is the first candidate that is a substring of the answer, else unknown",
    "multiline_answer": "the answer tag spans lines and is not matched; the whole response is scanned",
    "no_answer_tag": "no answer tag is closed; the whole response is scanned, reasoning included",
    "bin_edge": "ECE bins have float edges: 1.0 is in no bin, 0.3, 0.6 and 0.7 are one bin low",
    "unparsable_confidence": "float() does not read the confidence; the row is left out",
    "clipped": "a confidence outside [0, 1] is clipped; the default reads it as percent, or not at all",
    "other_confidence_tag": "float() of the first confidence tag, reasoning included, is another value",
}
"""What can make a row come out differently than by the default protocol."""
FAULTS = ROW_FAULTS | {
    "rows_without_confidence": "metric_conf.log is over rows with a confidence, beside #Samples of all",
    "not_printed": "a task and Overall have no ECE, Brier and ROC AUC",
}
"""What makes a number differ, by the name under which its rows are counted."""


class Outcome(NamedTuple):
    """What a row comes to. `scanned` is the label that Overall uses; `confidence` is in [0, 1]."""

    truth: str
    label: str
    scanned: str
    confidence: float | None


def tag_content(response: str, name: str) -> str | None:
    """What `re.search(f"<{name}>(.*?)</{name}>", response)` finds, in linear time; None if nothing."""
    for line in response.split("\n"):
        content, closing_tag, _ = line.partition(f"<{name}>")[2].partition(f"</{name}>")
        if closing_tag:
            return content
    return None


def first_candidate(text: str, candidates: Sequence[str]) -> str | None:
    """The first candidate, in list order, that is a substring of the lower-cased text."""
    lowered = text.lower()
    return next((candidate for candidate in candidates if candidate.lower() in lowered), None)


def read_confidence(response: str) -> tuple[float | None, bool]:
    """The confidence in [0, 1], None if it does not parse, and whether it was outside and is clipped."""
    try:
        stated = float(tag_content(response, "confidence") or "nan")
    except ValueError:
        return None, False
    if math.isnan(stated):
        return None, False
    clipped = min(max(stated, 0.0), 1.0)
    return clipped, clipped != stated


N_BINS = 10

# np.linspace(0, 1, 11) to the bit: 3 * 0.1, 6 * 0.1 and 7 * 0.1 lie one float above 0.3, 0.6 and 0.7.
_BIN_EDGES = tuple(index * 0.1 for index in range(N_BINS + 1))


Counted = Mapping[Outcome, int]
"""How many rows come to each outcome."""
Pairs = Counter[tuple[str, str]]
"""Rows per (truth, label)."""


class Level(NamedTuple):
    """All rows with one confidence."""

    confidence: float
    n: int
    n_right: int


def with_confidence(counted: Counted, threshold: float = 0.0) -> Counter[Outcome]:
    """Those whose confidence parses and is at least the threshold."""
    return Counter(
        {
            outcome: n
            for outcome, n in counted.items()
            if outcome.confidence is not None and outcome.confidence >= threshold
        }
    )


def count_pairs(counted: Counted, *, reads_scan: bool = False) -> Pairs:
    """Count rows per (truth, label), the label being the one that Overall uses if `reads_scan`."""
    pairs: Pairs = Counter()
    for outcome, n in counted.items():
        pairs[outcome.truth, outcome.scanned if reads_scan else outcome.label] += n
    return pairs


def accuracy(pairs: Pairs) -> float | None:
    """Share of rows whose label is the truth, in [0, 1]; None without rows."""
    n = pairs.total()
    return sum(count for (truth, label), count in pairs.items() if truth == label) / n if n else None


def weighted_f1(pairs: Pairs) -> float | None:
    """scikit-learn's `f1_score(average="weighted")`, in [0, 1], as an exact fraction; None without rows.

    `unknown` is a label like any other.
    """
    support: Counter[str] = Counter()
    n_predicted: Counter[str] = Counter()
    for (truth, label), n in pairs.items():
        support[truth] += n
        n_predicted[label] += n
    weighted = (n * Fraction(2 * pairs[name, name], n + n_predicted[name]) for name, n in support.items())
    return float(sum(weighted, Fraction(0)) / support.total()) if support else None


def confidence_levels(counted: Counted) -> list[Level]:
    """Rows per confidence, lowest first; a row without a confidence is in none."""
    n_rows: Counter[float] = Counter()
    n_right: Counter[float] = Counter()
    for outcome, n in counted.items():
        if outcome.confidence is not None:
            n_rows[outcome.confidence] += n
            n_right[outcome.confidence] += n * (outcome.label == outcome.truth)
    return [Level(confidence, n_rows[confidence], n_right[confidence]) for confidence in sorted(n_rows)]


def float_bin(confidence: float) -> int:
    """The bin of the published ECE, from 0; `N_BINS`, which is no bin, for 1.0."""
    return bisect_right(_BIN_EDGES, confidence) - 1


def decimal_bin(confidence: float) -> int:
    """The bin of the default ECE, from 0: that of the shortest decimal which reads as the float."""
    return min(math.floor(Fraction(repr(confidence)) * N_BINS), N_BINS - 1)


def ece(levels: Sequence[Level]) -> float | None:
    """sum over bins of (n_bin / n) |accuracy - mean confidence|; n counts 1.0, which is in no bin."""
    n = sum(level.n for level in levels)
    inside: dict[int, list[Level]] = {index: [] for index in range(N_BINS + 1)}
    for level in levels:
        inside[float_bin(level.confidence)].append(level)
    del inside[N_BINS]
    gaps = (
        abs(sum(one.n_right for one in some) - math.fsum(one.confidence * one.n for one in some))
        for some in inside.values()
    )
    return math.fsum(gaps) / n if n else None


def brier(levels: Sequence[Level]) -> float | None:
    """Mean (c - i)^2, i being 1 for a right answer and 0 for a wrong one; None without rows."""
    n = sum(level.n for level in levels)
    right = (level.n_right * (1 - level.confidence) ** 2 for level in levels)
    wrong = ((level.n - level.n_right) * level.confidence**2 for level in levels)
    return math.fsum(chain(right, wrong)) / n if n else None


def auroc(levels: Sequence[Level]) -> float | None:
    """Area under the ROC curve, ties counting half; None where all answers are right, or none is."""
    n_right = n_wrong = twice_wins = 0
    for level in levels:
        wrong_here = level.n - level.n_right
        twice_wins += level.n_right * (2 * n_wrong + wrong_here)
        n_right += level.n_right
        n_wrong += wrong_here
    return twice_wins / (2 * n_right * n_wrong) if n_right and n_wrong else None


def threshold_lines(group: str, counted: Counted) -> list[list[str]]:
    """Acc, F1 and coverage of the rows with c >= 0.1 ... 0.9; coverage is among rows with a confidence."""
    n_stated = with_confidence(counted).total()
    lines = []
    for threshold in (tenth / 10 for tenth in range(1, 10)):
        kept = count_pairs(with_confidence(counted, threshold))
        coverage = percent(kept.total() / n_stated if n_stated else None, 8)
        scores = [percent(accuracy(kept), 6), percent(weighted_f1(kept), 6), coverage]
        lines.append([group, f"{threshold:.1f}", *scores, str(kept.total())])
    return lines


_CALIBRATION = ("ece", "brier", "auroc")
_STATUS = ("answered", "unparsed", "failed")
_THRESHOLD_COLUMNS = ("Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples")
_THRESHOLD_TITLE = "Answers whose confidence is at least a threshold (Coverage: share of the rows with one)"


@dataclass
class _Rows:
    """The rows of some tasks: how many of each outcome, of each status, and with each fault."""

    group: str | None
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


class PaperProtocol:
    """Collects rows one at a time, in any order, and gives the published logs.

    Keeps one entry per distinct outcome (task, truth, labels, confidence), not the rows.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Rows] = {}
        self._known_scores: dict[str, Any] | None = None

    def add(self, record: Mapping[str, Any], scored: ScoredRow) -> None:
        """Count a row.

        Args:
            record: the row; what is read of it is `response_of`.
            scored: the same row by the default protocol, which tells where the two part.
        """
        self._known_scores = None
        rows = self._tasks.setdefault(scored.task, _Rows(scored.group))
        label = scanned = confidence = None
        response = response_of(record)
        if response is not None:
            answer = tag_content(response, "answer")
            scanned = first_candidate(response, scored.candidates)
            label = scanned if answer is None else first_candidate(answer, scored.candidates)
            confidence, is_clipped = read_confidence(response)
            rows.counts.update(_label_faults(response, answer, label, scanned, scored))
            rows.counts.update(_confidence_faults(confidence, is_clipped, scored))
        rows.counts["failed" if response is None else "unparsed" if label is None else "answered"] += 1
        # Every record brings its own copies of the labels; one of each is enough.
        truth, read, found = (sys.intern(name or UNKNOWN) for name in (scored.truth, label, scanned))
        rows.outcomes[Outcome(truth, read, found, confidence)] += 1

    def scores(self) -> dict[str, Any]:
        """Every number, as JSON can hold it: `tasks` and `groups` by name, in their order, and `overall`.

        Each holds `acc`, `f1`, `ece`, `brier`, `auroc` (in [0, 1], None where N/A), `n`,
        `n_with_confidence`, `answered`, `unparsed`, `failed`, and `faults`: by name of `ROW_FAULTS`, how many
        rows come out differently by it. `acc` and `f1` are those of metric.log, for a group those of
        metric_conf.log; `acc_with_confidence` and `f1_with_confidence` are those of metric_conf.log.
        """
        if self._known_scores is None:
            found: dict[str, Any] = {"tasks": {}, "groups": {}}
            for one in self._sets():
                rows = self._together(one)
                if one.kind == "task":
                    found["tasks"][one.name] = _scores(rows)
                elif one.kind == "group":
                    found["groups"][one.name] = _group_scores(rows)
                else:
                    found["overall"] = _scores(rows, reads_scan=True)
            self._known_scores = found
        return self._known_scores

    def _sets(self) -> tuple[TaskSet, ...]:
        return task_sets(self._tasks, {name: rows.group for name, rows in self._tasks.items()})

    def _together(self, one: TaskSet) -> _Rows:
        together = _Rows(None)
        for name in one.tasks:
            together.outcomes.update(self._tasks[name].outcomes)
            together.counts.update(self._tasks[name].counts)
        return together

    def metric_log(self) -> str:
        """The text of `metric.log`: the published table, row counts, tab-separated lines."""
        scores = self.scores()
        tasks = [_metric_row(name, task) for name, task in scores["tasks"].items()]
        overall = _metric_row(OVERALL, scores["overall"])
        part = "\n".join([tables.metric_table(tasks, overall), *_row_counts(scores["overall"])])
        return f"{part}\n\n{tables.tab_separated([*tasks, overall], tables.ACCURACY_FIELDS)}\n"

    def metric_conf_log(self) -> str:
        """The text of `metric_conf.log`: the published table, counts, thresholds, tab-separated lines."""
        scores = self.scores()
        tasks = [_confidence_row(name, task) for name, task in scores["tasks"].items()]
        groups = [_confidence_row(name, group) for name, group in scores["groups"].items()]
        overall = _confidence_row(OVERALL, scores["overall"])
        lines = [
            tables.confidence_table(tasks, groups, overall),
            *_row_counts(scores["overall"]),
            f"Confidence: {scores['overall']['n_with_confidence']} of {overall.n} rows have one that parses",
            "  (every number of the table but #Samples is over these)",
        ]
        blocks = [
            threshold_lines(one.name, self._together(one).outcomes)
            for one in self._sets()
            if one.kind == "group"
        ]
        parts = [
            "\n".join(lines),
            *([f"{_THRESHOLD_TITLE}\n{tables.free_table(_THRESHOLD_COLUMNS, blocks)}"] if blocks else []),
            tables.tab_separated([*tasks, *groups, overall], tables.CONFIDENCE_FIELDS),
        ]
        return "\n\n".join(parts) + "\n"


def _label_faults(
    response: str, answer: str | None, label: str | None, scanned: str | None, scored: ScoredRow
) -> Iterator[str]:
    if scanned != label:
        yield "whole_response_scan"
    if label != scored.label:
        spans_lines = "</answer>" in response.partition("<answer>")[2]
        yield "substring" if answer is not None else "multiline_answer" if spans_lines else "no_answer_tag"


def _confidence_faults(confidence: float | None, is_clipped: bool, scored: ScoredRow) -> Iterator[str]:
    by_default = None if scored.confidence is None else float(scored.confidence)
    if confidence != by_default:
        is_dropped = confidence is None
        yield "unparsable_confidence" if is_dropped else "clipped" if is_clipped else "other_confidence_tag"
    if confidence is not None and float_bin(confidence) != decimal_bin(confidence):
        yield "bin_edge"


def _scores(rows: _Rows, *, reads_scan: bool = False) -> dict[str, Any]:
    """The numbers of a task or of Overall, which have no calibration."""
    pairs = count_pairs(rows.outcomes, reads_scan=reads_scan)
    stated_pairs = count_pairs(with_confidence(rows.outcomes), reads_scan=reads_scan)
    return {
        "n": pairs.total(),
        "n_with_confidence": stated_pairs.total(),
        **{status: rows.counts[status] for status in _STATUS},
        "acc": accuracy(pairs),
        "f1": weighted_f1(pairs),
        **dict.fromkeys(_CALIBRATION),
        "acc_with_confidence": accuracy(stated_pairs),
        "f1_with_confidence": weighted_f1(stated_pairs),
        "faults": {fault: rows.counts[fault] for fault in ROW_FAULTS},
    }


def _group_scores(rows: _Rows) -> dict[str, Any]:
    scores = _scores(rows)
    levels = confidence_levels(rows.outcomes)
    return {
        **scores,
        "acc": scores["acc_with_confidence"],
        "f1": scores["f1_with_confidence"],
        "ece": ece(levels),
        "brier": brier(levels),
        "auroc": auroc(levels),
    }


def _metric_row(name: str, scores: Mapping[str, Any]) -> tables.Scores:
    return tables.Scores(name=name, n=scores["n"], acc=scores["acc"], f1=scores["f1"])


def _confidence_row(name: str, scores: Mapping[str, Any]) -> tables.Scores:
    return tables.Scores(
        name=name,
        n=scores["n"],  # all rows, beside numbers over those with a confidence
        acc=scores["acc_with_confidence"],
        f1=scores["f1_with_confidence"],
        **{name: scores[name] for name in _CALIBRATION},
    )


def _row_counts(overall: Mapping[str, Any]) -> list[str]:
    parts = " + ".join(f"{overall[status]} {status}" for status in _STATUS)
    return [
        f"Rows: {overall['n']} = {parts}",
        "  (an unparsed or failed row counts as the label unknown)",
        "Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only",
    ]


_LABEL = ("substring", "multiline_answer", "no_answer_tag")
_CONFIDENCE = ("unparsable_confidence", "clipped", "other_confidence_tag")
_TITLES = {"acc": "Acc", "f1": "F1", "ece": "ECE", "brier": "Brier", "auroc": "ROC AUC"}


def protocol_difference(
    paper: Mapping[str, Any], default: Mapping[str, Any]
) -> tuple[str, list[dict[str, Any]]]:
    """Compare the two protocols on the same rows, number by number as printed.

    Args:
        paper: `PaperProtocol.scores()`.
        default: the content of the default protocol's metrics.json.
    Returns:
        A section for people, which ends without a line break, and one entry for each number that differs:
        `level` (task, group, overall), `name`, `score` (acc, f1, ece, brier, auroc), `log` (the file that
        holds the number), `default` and `paper` (in [0, 1] or None), and `rows`: by name of `FAULTS`, how
        many rows come out differently by it.
    Raises:
        ValueError: the two are not of the same rows.
    """
    numbers = [number for level in _levels(paper, default) for number in _differing(*level)]
    return _difference_text(numbers), numbers


def _levels(
    paper: Mapping[str, Any], default: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Give what is to be compared: level, name, scores by the paper, scores by default."""
    try:
        levels = [("task", name, scores, default["tasks"][name]) for name, scores in paper["tasks"].items()]
        for name, scores in paper["groups"].items():
            levels.append(("group", name, scores, default["groups"][name]["samples"]))
        levels.append(("overall", OVERALL, paper["overall"], default["overall"]["samples"]))
    except KeyError as missing:
        raise ValueError(f"the default metrics lack {missing}; give those of the same predictions") from None
    for level, name, by_paper, by_default in levels:
        if by_paper["n"] != by_default["n"]:
            raise ValueError(
                f"{name} has {by_paper['n']} rows by paper and {by_default['n']} by default; "
                "give the metrics of the same predictions"
            )
        yield level, name, by_paper, by_default


def _differing(
    level: str, name: str, paper: Mapping[str, Any], default: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for log, score, key in _printed(level, paper):
        if percent(paper[key]) != percent(default[score]):
            yield {
                "level": level,
                "name": name,
                "score": score,
                "log": log,
                "default": default[score],
                "paper": paper[key],
                "rows": _faulty_rows(level, log, score, paper),
            }


def _printed(level: str, paper: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Give each number once: the log that prints it, its score, its key by the paper.

    metric_conf.log has Acc and F1 of a task and of Overall again; they count where they differ by themselves.
    """
    for score in ("acc", "f1"):
        if level != "group":
            yield "metric.log", score, score
        if level == "group" or percent(paper[f"{score}_with_confidence"]) != percent(paper[score]):
            yield "metric_conf.log", score, f"{score}_with_confidence"
    for score in _CALIBRATION:
        yield "metric_conf.log", score, score


def _faulty_rows(level: str, log: str, score: str, paper: Mapping[str, Any]) -> dict[str, int]:
    """Count the rows of each fault that bears on a number."""
    if score in _CALIBRATION and level != "group":
        return {"not_printed": paper["n"]}
    names = [*(("whole_response_scan",) if level == "overall" else ()), *_LABEL]
    if score in _CALIBRATION:
        names += [*(("bin_edge",) if score == "ece" else ()), *_CONFIDENCE]
    rows = {name: paper["faults"][name] for name in names}
    if log == "metric_conf.log" and score not in _CALIBRATION:
        rows["rows_without_confidence"] = paper["n"] - paper["n_with_confidence"]
    return {name: n for name, n in rows.items() if n}


def _difference_text(numbers: Iterable[Mapping[str, Any]]) -> str:
    lines = [
        "protocol_difference: default -> paper (its logs), in percent, and the rows that make the difference"
    ]
    reasons = set()
    for number in numbers:
        reasons |= set(number["rows"])
        if "not_printed" not in number["rows"]:
            lines.append(_difference_line(number))
    if "not_printed" in reasons:
        lines.append("  ECE, Brier and ROC AUC of every task and of Overall -> N/A (not_printed)")
    if len(lines) == 1:
        lines.append("  no printed number differs")
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in FAULTS.items() if name in reasons)])


def _difference_line(number: Mapping[str, Any]) -> str:
    title = f"{short_name(number['name'])} {_TITLES[number['score']]}"
    if number["level"] != "group" and number["log"] == "metric_conf.log":
        title += " in metric_conf.log"
    why = ", ".join(f"{name} {n}" for name, n in number["rows"].items()) or "no fault counted"
    return f"  {title}: {percent(number['default'])} -> {percent(number['paper'])} ({why})"
