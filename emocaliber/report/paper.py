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

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emocaliber.report import paper_arithmetic as arithmetic
from emocaliber.report import tables
from emocaliber.report.paper_arithmetic import Outcome
from emocaliber.report.paper_reading import first_candidate, read_confidence, tag_content
from emocaliber.scoring import ScoredRow, response_of
from emocaliber.taxonomy import GROUPS, task_sort_key

UNKNOWN = "unknown"
ROW_FAULTS = (
    "whole_response_scan",
    "substring",
    "multiline_answer",
    "no_answer_tag",
    "bin_edge",
    "unparsable_confidence",
    "clipped",
    "other_confidence_tag",
)
"""What can make a row come out differently than by the default protocol; told in `paper_difference`."""

_STATUS = ("answered", "unparsed", "failed")
_THRESHOLD_COLUMNS = ("Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples")
_THRESHOLD_TITLE = "Answers whose confidence is at least a threshold (Coverage: share of the rows with one)"


@dataclass
class _Rows:
    """The rows of a task: how many of each outcome, of each status, and with each fault."""

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
            tasks = {name: self._tasks[name] for name in sorted(self._tasks, key=task_sort_key)}
            members = {group: self._members(group) for group in GROUPS}
            self._known_scores = {
                "tasks": {name: _scores([rows]) for name, rows in tasks.items()},
                "groups": {group: _group_scores(rows) for group, rows in members.items() if rows},
                "overall": _scores(list(tasks.values()), reads_scan=True),
            }
        return self._known_scores

    def metric_log(self) -> str:
        """The text of `metric.log`: the published table, row counts, tab-separated lines."""
        scores = self.scores()
        tasks = [_metric_row(name, task) for name, task in scores["tasks"].items()]
        overall = _metric_row("Overall", scores["overall"])
        part = "\n".join([tables.metric_table(tasks, overall), *_row_counts(scores["overall"])])
        return f"{part}\n\n{tables.tab_separated([*tasks, overall], tables.ACCURACY_FIELDS)}\n"

    def metric_conf_log(self) -> str:
        """The text of `metric_conf.log`: the published table, counts, thresholds, tab-separated lines."""
        scores = self.scores()
        tasks = [_confidence_row(name, task) for name, task in scores["tasks"].items()]
        groups = [_confidence_row(name, group) for name, group in scores["groups"].items()]
        overall = _confidence_row("Overall", scores["overall"])
        lines = [
            tables.confidence_table(tasks, groups, overall),
            *_row_counts(scores["overall"]),
            f"Confidence: {scores['overall']['n_with_confidence']} of {overall.n} rows have one that parses",
            "  (every number of the table but #Samples is over these)",
        ]
        blocks = [_threshold_block(group, self._members(group)) for group in scores["groups"]]
        parts = [
            "\n".join(lines),
            *([f"{_THRESHOLD_TITLE}\n{tables.free_table(_THRESHOLD_COLUMNS, blocks)}"] if blocks else []),
            tables.tab_separated([*tasks, *groups, overall], tables.CONFIDENCE_FIELDS),
        ]
        return "\n\n".join(parts) + "\n"

    def _members(self, group: str) -> list[_Rows]:
        return [rows for rows in self._tasks.values() if rows.group == group]


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
    if confidence is not None and arithmetic.float_bin(confidence) != arithmetic.decimal_bin(confidence):
        yield "bin_edge"


def _counted(members: Iterable[_Rows]) -> list[tuple[Outcome, int]]:
    return [item for rows in members for item in rows.outcomes.items()]


def _scores(members: Sequence[_Rows], *, reads_scan: bool = False) -> dict[str, Any]:
    """The numbers of a task or of Overall, which have no calibration."""
    counted = _counted(members)
    stated = [item for item in counted if item[0].confidence is not None]
    pairs, stated_pairs = (arithmetic.count_pairs(rows, reads_scan=reads_scan) for rows in (counted, stated))
    counts: Counter[str] = Counter()
    for rows in members:
        counts.update(rows.counts)
    return {
        "n": pairs.total(),
        "n_with_confidence": stated_pairs.total(),
        **{status: counts[status] for status in _STATUS},
        "acc": arithmetic.accuracy(pairs),
        "f1": arithmetic.weighted_f1(pairs),
        "ece": None,
        "brier": None,
        "auroc": None,
        "acc_with_confidence": arithmetic.accuracy(stated_pairs),
        "f1_with_confidence": arithmetic.weighted_f1(stated_pairs),
        "faults": {fault: counts[fault] for fault in ROW_FAULTS},
    }


def _group_scores(members: Sequence[_Rows]) -> dict[str, Any]:
    scores = _scores(members)
    levels = arithmetic.confidence_levels(_counted(members))
    return {
        **scores,
        "acc": scores["acc_with_confidence"],
        "f1": scores["f1_with_confidence"],
        "ece": arithmetic.ece(levels),
        "brier": arithmetic.brier(levels),
        "auroc": arithmetic.auroc(levels),
    }


def _metric_row(name: str, scores: Mapping[str, Any]) -> tables.Scores:
    return tables.Scores(name=name, n=scores["n"], acc=scores["acc"], f1=scores["f1"])


def _confidence_row(name: str, scores: Mapping[str, Any]) -> tables.Scores:
    return tables.Scores(
        name=name,
        n=scores["n"],  # all rows, beside numbers over those with a confidence
        acc=scores["acc_with_confidence"],
        f1=scores["f1_with_confidence"],
        ece=scores["ece"],
        brier=scores["brier"],
        auroc=scores["auroc"],
    )


def _threshold_block(group: str, members: Sequence[_Rows]) -> list[list[str]]:
    return [
        [
            group,
            f"{kept.threshold:.1f}",
            tables.percent(kept.acc, 6),
            tables.percent(kept.f1, 6),
            tables.percent(kept.coverage, 8),
            str(kept.n),
        ]
        for kept in arithmetic.threshold_rows(_counted(members))
    ]


def _row_counts(overall: Mapping[str, Any]) -> list[str]:
    parts = " + ".join(f"{overall[status]} {status}" for status in _STATUS)
    return [
        f"Rows: {overall['n']} = {parts}",
        "  (an unparsed or failed row counts as the label unknown)",
        "Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only",
    ]
