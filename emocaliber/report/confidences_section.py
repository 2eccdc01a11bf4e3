"""The section of `metric_conf.log` about several confidences, and what `metrics.json` holds of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from emocaliber.confidences import (
    AGREEMENT,
    DISTRIBUTION,
    LIKELIHOOD,
    LIKELIHOOD_BEST,
    MEAN_STATED,
    P_TRUE,
    STATED,
)
from emocaliber.report.compared import ConfidenceScores
from emocaliber.report.confidences import WITHIN_TASKS, Best, ComparedRows, ConfidenceReport
from emocaliber.report.results import OVERALL
from emocaliber.report.tables import free_table, percent, with_interval

_SHOWN = (
    ("acc", "Acc"),
    ("ece", "ECE"),
    ("smooth_ece", "Smooth ECE"),
    ("brier", "Brier"),
    ("auroc", "ROC AUC"),
    (WITHIN_TASKS, "ROC AUC in tasks"),
    ("augrc", "AUGRC"),
)
_TITLES = {
    STATED: ("stated", "the number in the response"),
    LIKELIHOOD: (
        "likelihood",
        "the answer's share in the probabilities of all candidates after its reasoning",
    ),
    P_TRUE: ("P(True)", "the probability of True when the model is asked whether its answer is right"),
    DISTRIBUTION: ("distribution", "the answer's probability in the stated distribution"),
    LIKELIHOOD_BEST: (
        "likelihood, best",
        "the largest such share, of the candidate that has it as the answer",
    ),
    AGREEMENT: ("agreement", "the share of the samples that name their majority, which is the answer"),
    MEAN_STATED: ("mean stated", "the mean number in these, for the same answer"),
}
CONFIDENCE_TITLES = {name: title for name, (title, _) in _TITLES.items()}
"""What each confidence of `emocaliber.confidences` is called in tables."""


def confidences_section(report: ConfidenceReport) -> str:
    """A heading, what occurs, the scores, and which is best."""
    left_out = [_TITLES[name][0] for name in report.occurrences if name not in report.compared]
    head = [
        f"Confidences compared: {report.n_rows} rows hold more than the stated one; the scores are of the "
        f"{report.n_compared} that have all",
        *([f"  Not compared, for fewer than half have it: {'; '.join(left_out)}"] if left_out else []),
        *(f"  {_TITLES[name][0]}: {_TITLES[name][1]}" for name in report.occurrences),
        _occurrence_table(report),
    ]
    if report.overall is None:
        return "\n".join(head)
    scores = ["ROC AUC in tasks: the mean over tasks", _score_table(report)]
    return "\n\n".join(["\n".join(head), "\n".join(scores), "\n".join(best_lines(report))])


def best_lines(report: ConfidenceReport) -> list[str]:
    """Which confidence ranks best and which is calibrated best, over all rows, and what equals it."""
    if report.overall is None:
        return []
    kinds = (
        ("Ranks best (ROC AUC in tasks)", report.overall.ranks_best),
        ("Calibrated best (smooth ECE)", report.overall.calibrated_best),
    )
    return [f"{title}: {_told(best, with_draws=report.n_draws > 0)}" for title, best in kinds]


def _told(best: Best | None, *, with_draws: bool) -> str:
    if best is None:
        return "undefined"
    shown = f"{_TITLES[best.name][0]}, {percent(best.value)}"
    if not best.others:
        return f"{shown}, the only one"
    if not with_draws:
        return f"{shown} (no intervals: nothing is told apart)"
    same = [f"{_TITLES[name][0]}{_less(best, name)}" for name in best.not_told_apart]
    return (
        f"{shown}, not told apart from {', '.join(same)}" if same else f"{shown}, told apart from all others"
    )


def _less(best: Best, name: str) -> str:
    """The score of the best less that of another, whose paired interval holds 0."""
    less, interval = best.others[name]
    if interval is None:
        return f" ({100 * less:+.2f})"
    return f" ({100 * less:+.2f} [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}])"


def _occurrence_table(report: ConfidenceReport) -> str:
    lines = [
        [
            _TITLES[name][0],
            str(found.n),
            ", ".join(f"{reason} {n}" for reason, n in found.reasons.items()) or "-",
            "-" if found.tokens is None else f"{found.tokens:.1f}",
        ]
        for name, found in report.occurrences.items()
    ]
    return free_table(["Confidence", "#With one", "Without", "Tokens a row"], [lines])


def _score_table(report: ConfidenceReport) -> str:
    sets = [*report.tasks, *report.groups, *([report.overall] if report.overall else [])]
    blocks = [
        [
            [
                rows.name,
                _TITLES[name][0],
                *(with_interval(one.scores[score], one.intervals[score]) for score, _ in _SHOWN),
                str(rows.n),
            ]
            for name, one in rows.confidences.items()
        ]
        for rows in sets
    ]
    return free_table(["Task/Group", "Confidence", *(title for _, title in _SHOWN), "#Samples"], blocks)


def confidences_content(report: ConfidenceReport) -> dict[str, Any]:
    """`metrics.json`'s `confidences`: how often each occurs, and the scores of those compared.

    `overall`, `groups` and `tasks` hold by name the scores with their intervals and, `less_first`, how they
    differ from those of the first of `compared`; `ranks_best` and `calibrated_best` say by which `score`, and
    `less_others` by how much.
    """
    return {
        "n_rows": report.n_rows,
        "n_compared": report.n_compared,
        "compared": list(report.compared),
        "occurrences": {name: asdict(found) for name, found in report.occurrences.items()},
        OVERALL.lower(): report.overall and _rows_content(report.overall),
        "groups": {rows.name: _rows_content(rows) for rows in report.groups},
        "tasks": {rows.name: _rows_content(rows) for rows in report.tasks},
    }


def _rows_content(rows: ComparedRows) -> dict[str, Any]:
    return {
        "n": rows.n,
        "ranks_best": rows.ranks_best and _best_content(rows.ranks_best),
        "calibrated_best": rows.calibrated_best and _best_content(rows.calibrated_best),
        "confidences": {name: _scores_content(one) for name, one in rows.confidences.items()},
    }


def _best_content(best: Best) -> dict[str, Any]:
    return {
        "score": best.score,
        "name": best.name,
        "value": best.value,
        "not_told_apart_from": list(best.not_told_apart),
        "less_others": {name: less for name, (less, _) in best.others.items()},
        "less_others_intervals": {name: interval for name, (_, interval) in best.others.items()},
    }


def _scores_content(one: ConfidenceScores) -> dict[str, Any]:
    return {
        **one.scores,
        "intervals": one.intervals,
        "less_first": one.differences,
        "less_first_intervals": one.difference_intervals,
    }
