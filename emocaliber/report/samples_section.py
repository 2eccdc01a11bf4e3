"""The section of `metric_conf.log` about rows with several samples, and what `metrics.json` holds of them."""

from __future__ import annotations

from typing import Any

from emocaliber.report.compared import ConfidenceScores
from emocaliber.report.results import OVERALL
from emocaliber.report.samples import (
    AGREEMENT,
    CONFIDENCES,
    MEAN_STATED,
    RESPONSE,
    SampledRows,
    SampleReport,
)
from emocaliber.report.tables import free_table, percent, with_interval

_SHOWN = (
    ("ece", "ECE"),
    ("smooth_ece", "Smooth ECE"),
    ("brier", "Brier"),
    ("auroc", "ROC AUC"),
    ("augrc", "AUGRC"),
)
_TITLES = {
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
                _TITLES[name],
                *(with_interval(one.scores[score], one.intervals[score]) for score, _ in _SHOWN),
                str(one.n),
            ]
            for name, one in rows.confidences.items()
        ]
        for rows in (*report.tasks, *report.pooled)
    ]
    columns = ["Task/Group", "Answer, confidence", *(title for _, title in _SHOWN), "#With one"]
    return free_table(columns, blocks)


def _difference_table(report: SampleReport) -> str:
    shown = (("acc", "Acc"), *_SHOWN)
    blocks = [
        [
            [
                rows.name,
                _TITLES[name],
                *(_signed(rows.confidences[name], score) for score, _ in shown),
            ]
            for name in CONFIDENCES[1:]
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
        OVERALL.lower(): _rows_content(report.overall),
        "groups": {rows.name: _rows_content(rows) for rows in report.groups},
        "tasks": {rows.name: _rows_content(rows) for rows in report.tasks},
    }


def _rows_content(rows: SampledRows) -> dict[str, Any]:
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
