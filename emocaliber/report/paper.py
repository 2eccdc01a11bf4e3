"""The `paper` protocol: the published evaluator's arithmetic, faults included, to reproduce its numbers.

For comparison only; the `default` protocol is what is right. These rules are measured: they give every number
that the published evaluator printed for thousands of hostile rows (some in `tests/golden/paper_protocol`).
- A row with an `error` is taken out. One without a response is read as an empty text.
- The answer is what stands between the first `<answer>` and the next `</answer>` on one line of the
  lower-cased response; an empty or missing one is the whole response. The label is the first candidate,
  lower-cased and in list order, that is a substring of it, else `unknown`. Overall uses another label: the
  first candidate, as it is written, that is a substring of the whole lower-cased response.
- The truth is lower-cased and compared as it is. A task counts if it is spelt as one of the nine; any other
  one counts in Overall alone.
- The confidence is `float()` of the first `<confidence>` tag that is closed on its line, without braces, cut
  to [0, 1]; `nan` stays. Without such a tag a row has none. Where `float()` fails, the row is left out of
  metric_conf.log.
- In metric_conf.log tasks and Overall have no ECE, Brier and ROC AUC. The accuracy of a group is over its
  rows with a confidence, its F1 and #Samples are over all. ECE has ten bins `low <= c < high` on the floats
  of `linspace`, 1.0 is in none. ECE, Brier and ROC AUC are N/A if all rows with a confidence are right, or
  all wrong, or one confidence is `nan`.
- Thresholds 0.1 ... 0.9 keep `c >= t`; coverage is a share of all rows of the group; 0.00 where none is kept.
- Where a group has rows, but none with a confidence, the published program stops with an error.

Not measured: samples (the first stands for a missing response), and a file in which every row has an error.
The last digit of a mean that ends in exactly 5 can differ: it depends on the order of the published sum.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from emocaliber.metrics.calibration import auroc, brier
from emocaliber.metrics.counts import N_TENTHS, level_counts, number, tenth_of
from emocaliber.metrics.scores import weighted_f1
from emocaliber.report import tables
from emocaliber.report.tables import OVERALL, percent, short_name, task_sets
from emocaliber.scoring import ScoredRow, response_of
from emocaliber.taxonomy import GROUPS, TASKS

UNKNOWN = "unknown"

_TITLES = {"acc": "Acc", "f1": "F1", "ece": "ECE", "brier": "Brier", "auroc": "ROC AUC"}
_CALIBRATION = ("ece", "brier", "auroc")
_EVERY = ("metric.log", "metric_conf.log")

FAULTS = {
    "error": (_EVERY, "a row with an error is taken out; by default it is wrong"),
    "other_task": (("task", "group"), "a task not spelt as one of the nine counts in Overall alone"),
    "whole_response_scan": (("overall",), "Overall scans the whole response and finds another label"),
    "substring": (_EVERY, "the label is the first candidate that is a substring of the answer, else unknown"),
    "multiline_answer": (_EVERY, "the answer tag spans lines; the whole response is scanned"),
    "no_answer_tag": (_EVERY, "no answer tag is closed, or it is empty; the whole response is scanned"),
    "other_truth": (_EVERY, "the truth is compared as it is written, not as the candidate that it means"),
    "rows_without_confidence": (("group acc",), "Acc of a group is over its rows with a confidence"),
    "unparsable_confidence": (("metric_conf.log",), "float() fails on the confidence; the row is left out"),
    "no_confidence_tag": (_CALIBRATION, "no confidence tag is closed on its line; the default reads one"),
    "clipped": (_CALIBRATION, "what is outside [0, 1] is clipped; the default reads percent, or nothing"),
    "other_confidence_tag": (_CALIBRATION, "float() of the first confidence tag is another value"),
    "bin_edge": (("ece",), "ECE bins have float edges: 1.0 is in no bin, 0.3, 0.6 and 0.7 are one bin low"),
    "not_computed": ((), "no calibration where rows are all right or all wrong, or a confidence is nan"),
    "not_printed": ((), "a task and Overall have no ECE, Brier and ROC AUC"),
}
"""What makes a number differ: the logs, levels or scores that it bears on, and why."""


class _Row(NamedTuple):
    """A row as it is read. `scanned`: the label for Overall; a dropped row is not in metric_conf.log."""

    task: str
    truth: str
    label: str
    scanned: str
    confidence: float | None
    is_dropped: bool


def tag_content(response: str, name: str) -> str | None:
    """What `re.search(f"<{name}>(.*?)</{name}>", response)` finds, in linear time; None if nothing."""
    for line in response.split("\n"):
        content, closing_tag, _ = line.partition(f"<{name}>")[2].partition(f"</{name}>")
        if closing_tag:
            return content
    return None


def _read(record: Mapping[str, Any], scored: ScoredRow, response: str) -> _Row:
    lowered = response.lower()
    text = tag_content(lowered, "answer") or lowered
    label = next((name.lower() for name in scored.candidates if name.lower() in text), UNKNOWN)
    scanned = next((name for name in scored.candidates if name in lowered), UNKNOWN)
    truth = (record.get("ground_truth") or scored.truth).lower()
    stated, confidence = tag_content(response, "confidence"), None
    is_dropped = False
    if stated is not None:
        try:
            confidence = min(max(float(stated.replace("{", "").replace("}", "")), 0.0), 1.0)
        except ValueError:
            is_dropped = True
    # Every record brings its own copies of the names; one of each is enough.
    task, truth, label, scanned = map(sys.intern, (str(record.get("task", "")), truth, label, scanned))
    return _Row(task, truth, label, scanned, confidence, is_dropped)


def _faults(row: _Row, scored: ScoredRow, response: str) -> Iterator[str]:
    """Why the row comes out differently than by the default protocol."""
    if row.task not in TASKS:
        yield "other_task"
    if row.scanned != row.label:
        yield "whole_response_scan"
    if row.label != (scored.label or UNKNOWN).lower():
        lowered = response.lower()
        answer, is_closed = tag_content(lowered, "answer"), "</answer>" in lowered.partition("<answer>")[2]
        spans_lines = answer is None and is_closed
        yield "substring" if answer else "multiline_answer" if spans_lines else "no_answer_tag"
    if row.truth != scored.truth.lower():
        yield "other_truth"
    by_default = None if scored.confidence is None else float(scored.confidence)
    if row.is_dropped:
        yield "unparsable_confidence"
    elif row.confidence is None:
        yield "rows_without_confidence"
        if by_default is not None:
            yield "no_confidence_tag"
    elif not math.isnan(row.confidence):
        if row.confidence != by_default:
            yield "clipped" if row.confidence in (0, 1) else "other_confidence_tag"
        if _bins(row.confidence) != tenth_of(Decimal(repr(row.confidence))):
            yield "bin_edge"


def _bins(confidence: Any) -> Any:
    """The bin of the published ECE of each, from 0; 10, which is no bin, for 1.0."""
    return np.digitize(confidence, np.linspace(0, 1, N_TENTHS + 1)) - 1


class PaperProtocol:
    """Collects rows one at a time, and gives the published numbers. Keeps a few short texts a row."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._n_errors = 0
        self._groups: dict[str, str | None] = {}
        self._faults: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, record: Mapping[str, Any], scored: ScoredRow) -> None:
        """Count a row; `scored` is the same row by the default protocol, which tells where the two part."""
        self._groups[scored.task] = scored.group
        if record.get("error") is not None:
            self._n_errors += 1
            self._faults[scored.task]["error"] += 1
            return
        response = response_of(record) or ""
        row = _read(record, scored, response)
        self._rows.append(row)
        self._faults[scored.task].update(_faults(row, scored, response))

    def scores(self) -> dict[str, Any]:
        """Every number, as JSON can hold it: `tasks` and `groups` by name, in their order, and `overall`.

        Scores are in [0, 1], None where N/A. A task that occurs and `overall` hold `n`, `acc`, `f1` of
        metric.log, how many rows have a label (`answered`) or none (`unparsed`), and the `n`, `acc`, `f1` of
        `metric_conf_log`. Each of the three groups holds `n`, `n_with_confidence`, `acc`, `f1`, `ece`,
        `brier`, `auroc`, `coverage` and `thresholds`, all of metric_conf.log. `n_errors`: rows taken out.
        `faults`: by level (task, group, overall) and name, how many rows come out differently by which of
        `FAULTS`; there a row is in the task in which the default protocol has it.
        """
        of_task = {name: [row for row in self._rows if row.task == name] for name in TASKS}
        of_group = {
            name: [row for row in self._rows if row.task in TASKS and TASKS[row.task].group == name]
            for name in GROUPS
        }
        faults: dict[str, dict[str, dict[str, int]]] = {"task": {}, "group": {}, "overall": {}}
        for one in task_sets(self._groups, self._groups):
            faults[one.kind][one.name] = dict(sum((self._faults[task] for task in one.tasks), Counter()))
        return {
            "n_errors": self._n_errors,
            "tasks": {name: _scores(rows) for name, rows in of_task.items() if rows},
            "groups": {name: _group_scores(rows) for name, rows in of_group.items()},
            "overall": _scores([row._replace(label=row.scanned) for row in self._rows]),
            "faults": faults,
        }


def _scores(rows: Sequence[_Row]) -> dict[str, Any]:
    """The numbers of a task or of Overall."""
    kept = [row for row in rows if not row.is_dropped]
    n_unparsed = sum(row.label == UNKNOWN for row in rows)
    return {
        "n": len(rows),
        "answered": len(rows) - n_unparsed,
        "unparsed": n_unparsed,
        "acc": _accuracy(rows),
        "f1": _weighted_f1(rows),
        "metric_conf_log": {"n": len(kept), "acc": _accuracy(kept), "f1": _weighted_f1(kept)},
    }


def _group_scores(rows: Sequence[_Row]) -> dict[str, Any]:
    kept = [row for row in rows if not row.is_dropped]
    stated = [row for row in kept if row.confidence is not None]
    thresholds = []
    for threshold in (tenth / 10 for tenth in range(1, N_TENTHS)):
        sure = [row for row in stated if row.confidence is not None and row.confidence >= threshold]
        numbers = (_accuracy(sure), _weighted_f1(sure), len(sure) / len(kept)) if sure else (0.0, 0.0, 0.0)
        scores = dict(zip(("acc", "f1", "coverage"), numbers if kept else (None, None, None), strict=True))
        thresholds.append({"threshold": threshold, "n": len(sure), **scores})
    return {
        "n": len(kept),
        "n_with_confidence": len(stated),
        "acc": _accuracy(stated),
        "f1": _weighted_f1(kept),
        **_calibration(stated),
        "coverage": len(stated) / len(kept) if kept else None,
        "thresholds": thresholds,
    }


def _accuracy(rows: Sequence[_Row]) -> float | None:
    return sum(row.label == row.truth for row in rows) / len(rows) if rows else None


def _weighted_f1(rows: Sequence[_Row]) -> float | None:
    """`unknown` is a label like any other."""
    support, predicted = Counter(row.truth for row in rows), Counter(row.label for row in rows)
    hits = Counter(row.truth for row in rows if row.label == row.truth)
    counts = ([count[name] for name in support] for count in (support, predicted, hits))
    return number(weighted_f1(*(np.array(count, dtype=np.float64) for count in counts)))


def _calibration(stated: Sequence[_Row]) -> dict[str, float | None]:
    """ECE, Brier score and ROC AUC of rows with a confidence; but for the bins they are the default's."""
    confidence = np.array([row.confidence for row in stated], dtype=np.float64)
    right = np.array([row.label == row.truth for row in stated])
    if len(set(right.tolist())) < 2 or np.isnan(confidence).any():
        return dict.fromkeys(_CALIBRATION)
    bins, levels = _bins(confidence), level_counts(confidence, right)
    gaps = (abs(math.fsum((right - confidence)[bins == index])) for index in range(N_TENTHS))
    return {
        "ece": math.fsum(gaps) / len(stated),
        "brier": number(brier(levels)),
        "auroc": number(auroc(levels)),
    }


@dataclass(frozen=True, kw_only=True)
class _Line(tables.Scores):
    coverage: float | None = None


_GROUP_FIELDS = (*tables.CONFIDENCE_FIELDS, ("coverage", "Coverage"))
_THRESHOLD_COLUMNS = ("Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples")
_THRESHOLD_TITLE = (
    "Answers whose confidence is at least a threshold (Coverage: share of the rows of the group)"
)


def metric_log(scores: Mapping[str, Any]) -> str:
    """The text of `metric.log` of `PaperProtocol.scores()`: table, row counts, tab-separated lines."""
    rows = _lines(scores["tasks"] | {OVERALL: scores["overall"]})
    part = "\n".join([tables.metric_table(rows[:-1], rows[-1]), *_row_counts(scores)])
    return f"{part}\n\n{tables.tab_separated(rows, tables.ACCURACY_FIELDS)}\n"


def metric_conf_log(scores: Mapping[str, Any]) -> str:
    """The text of `metric_conf.log`: table, counts, tab-separated lines, thresholds."""
    here = {name: one["metric_conf_log"] for name, one in scores["tasks"].items()}
    rows = _lines({name: one for name, one in here.items() if one["n"]})
    overall, groups = _lines({OVERALL: scores["overall"]["metric_conf_log"]}), _lines(scores["groups"])
    n = scores["overall"]["n"]
    lines = [
        tables.confidence_table(rows, groups, overall[0]),
        *_row_counts(scores),
        f"Confidence: {n - overall[0].n} of {n} rows are left out, for float() fails on theirs",
        "  (a group's Acc, ECE, Brier and ROC AUC are over its rows with a confidence, the rest over all)",
        *(
            f"The published program stops with an error here: {name} has rows, but none with a confidence"
            for name, one in scores["groups"].items()
            if one["n"] and not one["n_with_confidence"]
        ),
    ]
    blocks = [
        [_threshold_line(name, at) for at in one["thresholds"]] for name, one in scores["groups"].items()
    ]
    parts = [
        "\n".join(lines),
        tables.tab_separated(rows + overall, tables.ACCURACY_FIELDS),
        tables.tab_separated(groups, _GROUP_FIELDS),
        f"{_THRESHOLD_TITLE}\n{tables.free_table(_THRESHOLD_COLUMNS, blocks)}",
        "\n".join("\t".join(map(str.strip, line)) for line in chain([_THRESHOLD_COLUMNS], *blocks)),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(scores: Mapping[str, Mapping[str, Any]]) -> list[_Line]:
    names = ("coverage", *_TITLES)
    return [
        _Line(name=name, n=one["n"], **{key: one.get(key) for key in names}) for name, one in scores.items()
    ]


def _row_counts(scores: Mapping[str, Any]) -> list[str]:
    rows = scores["overall"]
    return [
        f"Rows: {rows['n']} = {rows['answered']} answered + {rows['unparsed']} unparsed; "
        f"{scores['n_errors']} more with an error are taken out",
        "  (an unparsed row counts as the label unknown)",
        "Protocol: paper, the published evaluator's arithmetic with its faults; for comparison only",
    ]


def _threshold_line(group: str, at: Mapping[str, Any]) -> list[str]:
    scores = (percent(at["acc"], 6), percent(at["f1"], 6), percent(at["coverage"], 8))
    return [group, f"{at['threshold']:.1f}", *scores, str(at["n"])]


def protocol_difference(
    paper: Mapping[str, Any], default: Mapping[str, Any]
) -> tuple[str, list[dict[str, Any]]]:
    """Compare the two protocols on the same rows, number by number as printed.

    Args:
        paper: `PaperProtocol.scores()`.
        default: the content of the default protocol's metrics.json, of the same rows.
    Returns:
        A section for people, which ends without a line break, and one entry for each number that differs:
        `level` (task, group, overall), `name`, `score` (acc, f1, ece, brier, auroc), `log` (the file that
        holds the number), `default` and `paper` (in [0, 1] or None), and `rows`: by name of `FAULTS`, how
        many rows come out differently by it.
    """
    # A task that is not spelt as one of the nine has no line.
    levels = [("task", name, paper["tasks"].get(name, {}), one) for name, one in default["tasks"].items()]
    levels += [
        ("group", name, paper["groups"][name], one["samples"]) for name, one in default["groups"].items()
    ]
    levels += [("overall", OVERALL, paper["overall"], default["overall"]["samples"])]
    numbers = []
    for level, name, by_paper, by_default in levels:
        for log, score, value in _printed(level, by_paper):
            if percent(value) != percent(by_default[score]):
                rows = {
                    fault: n
                    for fault, n in paper["faults"][level][name].items()
                    if {level, log, score, f"{level} {score}"} & set(FAULTS[fault][0])
                }
                if score in _CALIBRATION and value is None:
                    rows = {"not_computed" if level == "group" else "not_printed": by_default["n"]}
                numbers.append(
                    {"level": level, "name": name, "score": score, "log": log}
                    | {"default": by_default[score], "paper": value, "rows": rows}
                )
    return _difference_text(numbers), numbers


def _printed(level: str, paper: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None]]:
    """Give each number once: the log that prints it, its score, its value by the paper.

    metric_conf.log has Acc and F1 of a task and of Overall again; they count where they differ by themselves.
    """
    for score in ("acc", "f1") if level != "group" else ():
        yield "metric.log", score, paper.get(score)
        again = paper.get("metric_conf_log", {}).get(score)
        if percent(again) != percent(paper.get(score)):
            yield "metric_conf.log", score, again
    for score in _TITLES if level == "group" else _CALIBRATION:
        yield "metric_conf.log", score, paper.get(score)


def _difference_text(numbers: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "protocol_difference: default -> paper (its logs), in percent, and the rows that make the difference"
    ]
    reasons = {fault for one in numbers for fault in one["rows"]}
    for one in numbers:
        if "not_printed" not in one["rows"]:
            is_again = one["level"] != "group" and one["log"] == "metric_conf.log"
            title = f"{short_name(one['name'])} {_TITLES[one['score']]}{' in metric_conf.log' * is_again}"
            why = ", ".join(f"{name} {n}" for name, n in one["rows"].items()) or "no fault counted"
            lines.append(f"  {title}: {percent(one['default'])} -> {percent(one['paper'])} ({why})")
    if "not_printed" in reasons:
        lines.append("  ECE, Brier and ROC AUC of every task and of Overall -> N/A (not_printed)")
    if not numbers:
        lines.append("  no printed number differs")
    return "\n".join([*lines, *(f"{name}: {why}" for name, (_, why) in FAULTS.items() if name in reasons)])
