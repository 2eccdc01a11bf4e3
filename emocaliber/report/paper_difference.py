"""Where the `paper` protocol prints another number than the default one, why, and by how many rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emocaliber.report.tables import percent, short_name

FAULTS = {
    "whole_response_scan": "Overall scans the whole response, reasoning included, and finds another label",
    "substring": "the label is the first candidate that is a substring of the answer, else unknown",
    "multiline_answer": "the answer tag spans lines and is not matched; the whole response is scanned",
    "no_answer_tag": "no answer tag is closed; the whole response is scanned, reasoning included",
    "bin_edge": "ECE bins have float edges: 1.0 is in no bin, 0.3, 0.6 and 0.7 are one bin low",
    "unparsable_confidence": "float() does not read the confidence; the row is left out",
    "clipped": "a confidence outside [0, 1] is clipped; the default reads it as percent, or not at all",
    "other_confidence_tag": "float() of the first confidence tag, reasoning included, is another value",
    "rows_without_confidence": "metric_conf.log is over rows with a confidence, beside #Samples of all",
    "not_printed": "a task and Overall have no ECE, Brier and ROC AUC",
}
"""What makes a number differ, by the name under which its rows are counted."""

_LABEL = ("substring", "multiline_answer", "no_answer_tag")
_CONFIDENCE = ("unparsable_confidence", "clipped", "other_confidence_tag")
_CALIBRATION = ("ece", "brier", "auroc")
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
    return _text(numbers), numbers


def _levels(
    paper: Mapping[str, Any], default: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Give what is to be compared: level, name, scores by the paper, scores by default."""
    try:
        levels = [("task", name, scores, default["tasks"][name]) for name, scores in paper["tasks"].items()]
        for name, scores in paper["groups"].items():
            levels.append(("group", name, scores, default["groups"][name]["samples"]))
        levels.append(("overall", "Overall", paper["overall"], default["overall"]["samples"]))
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
                "rows": _rows(level, log, score, paper),
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


def _rows(level: str, log: str, score: str, paper: Mapping[str, Any]) -> dict[str, int]:
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


def _text(numbers: Iterable[Mapping[str, Any]]) -> str:
    lines = [
        "protocol_difference: default -> paper (its logs), in percent, and the rows that make the difference"
    ]
    reasons = set()
    for number in numbers:
        reasons |= set(number["rows"])
        if "not_printed" not in number["rows"]:
            lines.append(_line(number))
    if "not_printed" in reasons:
        lines.append("  ECE, Brier and ROC AUC of every task and of Overall -> N/A (not_printed)")
    if len(lines) == 1:
        lines.append("  no printed number differs")
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in FAULTS.items() if name in reasons)])


def _line(number: Mapping[str, Any]) -> str:
    title = f"{short_name(number['name'])} {_TITLES[number['score']]}"
    if number["level"] != "group" and number["log"] == "metric_conf.log":
        title += " in metric_conf.log"
    why = ", ".join(f"{name} {n}" for name, n in number["rows"].items()) or "no fault counted"
    return f"  {title}: {percent(number['default'])} -> {percent(number['paper'])} ({why})"
