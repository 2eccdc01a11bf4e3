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
from emocaliber.report.confidences import (
    RESPONSE,
    SAMPLE_CONFIDENCES,
    WITHIN_TASKS,
    Best,
    ComparedRows,
    ConfidenceReport,
    ConfidenceScores,
    SampledRows,
    SampleReport,
)
from emocaliber.report.summary import OVERALL
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


_samples_section_SHOWN = (
    ("ece", "ECE"),
    ("smooth_ece", "Smooth ECE"),
    ("brier", "Brier"),
    ("auroc", "ROC AUC"),
    ("augrc", "AUGRC"),
)
_samples_section_TITLES = {
    RESPONSE: "response, stated",
    AGREEMENT: "majority, agreement",
    MEAN_STATED: "majority, mean stated",
}


def samples_section(report: SampleReport, n_rows: int) -> str:
    """A heading and three tables.

    Args:
        report: the rows with samples.
        n_rows: how many rows there are with or without samples.
    """
    rows = report.overall
    head = [
        f"Of k samples a row, k {_range(rows)}: {rows.n} of {n_rows} rows have at least two",
        "  Majority: the label that most samples name; of equals the one whose samples state the higher",
        "    confidences in sum, then the first of the candidates. A sample without a label votes for none.",
        "  Mean: over all samples; SD: between the accuracies of all first, all second, ... samples",
        f"  Ties: {rows.n_tied} rows; no majority, for no sample has a label, counting as wrong: "
        f"{rows.n_undecided} rows",
    ]
    others = [
        "Three confidences on the same rows (the response's, for its own answer, and two for the majority's;",
        "  agreement: the share of the samples that name it, mean stated: by these)",
        _confidence_table(report),
    ]
    gains = [
        "The majority and its confidences less the response (paired draws)",
        _difference_table(report),
    ]
    return "\n\n".join("\n".join(lines) for lines in ([*head, _answer_table(report)], others, gains))


def _range(rows: SampledRows) -> str:
    return str(rows.most) if rows.fewest == rows.most else f"{rows.fewest} to {rows.most}"


def _answer_table(report: SampleReport) -> str:
    columns = [
        "Task/Group",
        "k",
        "Acc, response",
        "Acc, mean",
        "SD",
        "Acc, majority",
        "Agreement",
        "#Samples",
    ]

    def line(rows: SampledRows) -> list[str]:
        response, voted = rows.confidences[RESPONSE], rows.confidences[AGREEMENT]
        return [
            rows.name,
            _range(rows),
            with_interval(response.scores["acc"], response.intervals["acc"]),
            with_interval(rows.mean_acc, rows.mean_acc_interval),
            percent(rows.spread, 6),
            with_interval(voted.scores["acc"], voted.intervals["acc"]),
            with_interval(rows.agreement, rows.agreement_interval),
            str(rows.n),
        ]

    blocks = [list(map(line, block)) for block in (report.tasks, report.groups, [report.overall])]
    return free_table(columns, blocks)


def _confidence_table(report: SampleReport) -> str:
    blocks = [
        [
            [
                rows.name,
                _samples_section_TITLES[name],
                *(
                    with_interval(one.scores[score], one.intervals[score])
                    for score, _ in _samples_section_SHOWN
                ),
                str(one.n),
            ]
            for name, one in rows.confidences.items()
        ]
        for rows in (*report.tasks, *report.pooled)
    ]
    columns = [
        "Task/Group",
        "Answer, confidence",
        *(title for _, title in _samples_section_SHOWN),
        "#With one",
    ]
    return free_table(columns, blocks)


def _difference_table(report: SampleReport) -> str:
    shown = (("acc", "Acc"), *_samples_section_SHOWN)
    blocks = [
        [
            [
                rows.name,
                _samples_section_TITLES[name],
                *(_signed(rows.confidences[name], score) for score, _ in shown),
            ]
            for name in SAMPLE_CONFIDENCES[1:]
        ]
        for rows in report.pooled
    ]
    return free_table(["Group", "Answer, confidence", *(title for _, title in shown)], blocks)


def _signed(one: ConfidenceScores, score: str) -> str:
    difference, interval = one.differences[score], one.difference_intervals[score]
    if difference is None:
        return percent(None, 6)
    shown = f"{100 * difference:+6.2f}"
    return shown if interval is None else f"{shown} [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"


def samples_content(report: SampleReport) -> dict[str, Any]:
    """`metrics.json`'s `samples`: `n_images`, `overall`, `groups`, `tasks`.

    Each set holds its counts, `acc_mean_of_samples`, `acc_sd_between_samples`, `agreement`, and in
    `confidences` by name the scores of `response`, `agreement` and `mean_stated`, the last two with their
    differences from the first.
    """
    return {
        "n_images": report.n_images,
        OVERALL.lower(): _samples_section_rows_content(report.overall),
        "groups": {rows.name: _samples_section_rows_content(rows) for rows in report.groups},
        "tasks": {rows.name: _samples_section_rows_content(rows) for rows in report.tasks},
    }


def _samples_section_rows_content(rows: SampledRows) -> dict[str, Any]:
    return {
        "n": rows.n,
        "fewest_samples": rows.fewest,
        "most_samples": rows.most,
        "n_tied": rows.n_tied,
        "n_without_majority": rows.n_undecided,
        "acc_mean_of_samples": rows.mean_acc,
        "acc_sd_between_samples": rows.spread,
        "agreement": rows.agreement,
        "intervals": {"acc_mean_of_samples": rows.mean_acc_interval, "agreement": rows.agreement_interval},
        "confidences": {name: _confidence_content(name, one) for name, one in rows.confidences.items()},
    }


def _confidence_content(name: str, one: ConfidenceScores) -> dict[str, Any]:
    content = {"n_with_confidence": one.n, **one.scores, "intervals": one.intervals}
    if name == RESPONSE:
        return content
    return {
        **content,
        "less_response": one.differences,
        "less_response_intervals": one.difference_intervals,
    }
