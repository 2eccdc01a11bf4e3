"""The sections of `metric_conf.log` about several confidences and samples, and their `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from emocaliber.confidences import AGREEMENT, MEAN_STATED
from emocaliber.report.confidences import (
    RESPONSE,
    SAMPLE_CONFIDENCES,
    WITHIN_TASKS,
    Best,
    ComparedRows,
    ConfidenceReport,
    ConfidenceScores,
    ConfidencesOfRows,
    SampledRows,
    SampleReport,
)
from emocaliber.report.tables import (
    CONFIDENCE_MEANINGS,
    CONFIDENCE_TITLES,
    OVERALL,
    BySet,
    free_table,
    own_interval,
    percent,
    with_interval,
)

_ACC, _AUGRC = ("acc", "Acc"), ("augrc", "AUGRC")
_CALIBRATION = (("ece", "ECE"), ("smooth_ece", "Smooth ECE"), ("brier", "Brier"), ("auroc", "ROC AUC"))
_COMPARED = (_ACC, *_CALIBRATION, (WITHIN_TASKS, "ROC AUC in tasks"), _AUGRC)
_SAMPLED = (*_CALIBRATION, _AUGRC)
_SAMPLE_TITLES = {
    RESPONSE: "response, stated",
    AGREEMENT: "majority, agreement",
    MEAN_STATED: "majority, mean stated",
}


def confidences_section(report: ConfidenceReport) -> str:
    """A heading, what occurs, the scores, and which is best."""
    left_out = [CONFIDENCE_TITLES[name] for name in report.occurrences if name not in report.compared]
    head = [
        f"Confidences compared: {report.n_rows} rows hold more than the stated one; the scores are of the "
        f"{report.n_compared} that have all",
        *([f"  Not compared, for fewer than half have it: {'; '.join(left_out)}"] if left_out else []),
        *(f"  {CONFIDENCE_TITLES[name]}: {CONFIDENCE_MEANINGS[name]}" for name in report.occurrences),
        _occurrence_table(report),
    ]
    if report.by_set is None:
        return "\n".join(head)
    table = _score_table(report.by_set, _COMPARED, CONFIDENCE_TITLES, "Confidence")
    scores = f"ROC AUC in tasks: the mean over tasks\n{table}"
    return "\n\n".join(["\n".join(head), scores, "\n".join(best_lines(report))])


def best_lines(report: ConfidenceReport) -> list[str]:
    """Which confidence ranks best and which is calibrated best, over all rows, and what equals it."""
    if report.by_set is None:
        return []
    overall = report.by_set.overall
    kinds = (
        ("Ranks best (ROC AUC in tasks)", overall.ranks_best),
        ("Calibrated best (smooth ECE)", overall.calibrated_best),
    )
    return [f"{title}: {_told(best, with_draws=report.n_draws > 0)}" for title, best in kinds]


def _told(best: Best | None, *, with_draws: bool) -> str:
    if best is None:
        return "undefined"
    shown = f"{CONFIDENCE_TITLES[best.name]}, {percent(best.value)}"
    if not best.others:
        return f"{shown}, the only one"
    if not with_draws:
        return f"{shown} (no intervals: nothing is told apart)"
    same = [f"{CONFIDENCE_TITLES[name]}{_less(best, name)}" for name in best.not_told_apart]
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
            CONFIDENCE_TITLES[name],
            str(found.n),
            ", ".join(f"{reason} {n}" for reason, n in found.reasons.items()) or "-",
            "-" if found.tokens is None else f"{found.tokens:.1f}",
        ]
        for name, found in report.occurrences.items()
    ]
    return free_table(["Confidence", "#With one", "Without", "Tokens a row"], [lines])


def samples_section(report: SampleReport, n_rows: int) -> str:
    """A heading and three tables.

    Args:
        report: the rows with samples.
        n_rows: how many rows there are with or without samples.
    """
    rows = report.overall
    answers = [
        f"Of k samples a row, k {_range(rows)}: {rows.n} of {n_rows} rows have at least two",
        "  Majority: the label that most samples name; of equals the one whose samples state the higher",
        "    confidences in sum, then the first of the candidates. A sample without a label votes for none.",
        "  Mean: over all samples; SD: between the accuracies of all first, all second, ... samples",
        f"  Ties: {rows.n_tied} rows; no majority, for no sample has a label, counting as wrong: "
        f"{rows.n_without_majority} rows",
        _answer_table(report),
    ]
    others = [
        "Three confidences on the same rows (the response's, for its own answer, and two for the majority's;",
        "  agreement: the share of the samples that name it, mean stated: by these)",
        _score_table(report, _SAMPLED, _SAMPLE_TITLES, "Answer, confidence", n_is_stated=True),
    ]
    gains = [
        "The majority and its confidences less the response (paired draws)",
        _difference_table(report),
    ]
    return "\n\n".join("\n".join(lines) for lines in (answers, others, gains))


def _range(rows: SampledRows) -> str:
    most = rows.most_samples
    return str(most) if rows.fewest_samples == most else f"{rows.fewest_samples} to {most}"


def _answer_table(report: SampleReport) -> str:
    def line(rows: SampledRows) -> list[str]:
        response, voted = rows.confidences[RESPONSE], rows.confidences[AGREEMENT]
        return [
            rows.name,
            _range(rows),
            own_interval(response, "acc"),
            with_interval(rows.acc_mean_of_samples, rows.intervals["acc_mean_of_samples"]),
            percent(rows.acc_sd_between_samples, 6),
            own_interval(voted, "acc"),
            with_interval(rows.agreement, rows.intervals["agreement"]),
            str(rows.n),
        ]

    accuracies = ("Acc, response", "Acc, mean", "SD", "Acc, majority")
    columns = ["Task/Group", "k", *accuracies, "Agreement", "#Samples"]
    return free_table(columns, [list(map(line, block)) for block in report.blocks])


def _score_table(
    by_set: BySet[Any],
    scores: Sequence[tuple[str, str]],
    titles: Mapping[str, str],
    heading: str,
    *,
    n_is_stated: bool = False,
) -> str:
    """A block a set, a line a confidence; the last column counts the rows, or those that state it."""

    def lines(rows: ConfidencesOfRows) -> list[list[str]]:
        return [
            [
                rows.name,
                titles[name],
                *(own_interval(one, score) for score, _ in scores),
                str(one.n if n_is_stated else rows.n),
            ]
            for name, one in rows.confidences.items()
        ]

    counted = "#With one" if n_is_stated else "#Samples"
    columns = ["Task/Group", heading, *(title for _, title in scores), counted]
    return free_table(columns, [lines(rows) for rows in (*by_set.tasks, *by_set.pooled)])


def _difference_table(report: SampleReport) -> str:
    shown = (_ACC, *_SAMPLED)
    blocks = [
        [
            [
                rows.name,
                _SAMPLE_TITLES[name],
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


def confidences_content(report: ConfidenceReport) -> dict[str, Any]:
    """`metrics.json`'s `confidences`: how often each occurs, and the scores of those compared.

    `overall`, `groups` and `tasks` hold by name the scores with their intervals and, `less_first`, how they
    differ from those of the first of `compared`; `ranks_best` and `calibrated_best` say by which `score`, and
    `less_others` by how much.
    """
    by_set = report.by_set
    return {
        "n_rows": report.n_rows,
        "n_compared": report.n_compared,
        "compared": list(report.compared),
        "occurrences": {name: asdict(found) for name, found in report.occurrences.items()},
        OVERALL.lower(): by_set and _compared_content(by_set.overall),
        "groups": {rows.name: _compared_content(rows) for rows in (by_set.groups if by_set else ())},
        "tasks": {rows.name: _compared_content(rows) for rows in (by_set.tasks if by_set else ())},
    }


def _compared_content(rows: ComparedRows) -> dict[str, Any]:
    return {
        "n": rows.n,
        "ranks_best": rows.ranks_best and _best_content(rows.ranks_best),
        "calibrated_best": rows.calibrated_best and _best_content(rows.calibrated_best),
        "confidences": {name: _scores_content(one, "less_first") for name, one in rows.confidences.items()},
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


def _scores_content(one: ConfidenceScores, less: str) -> dict[str, Any]:
    """`less`: the key of the differences; none without it."""
    content = {**one.scores, "intervals": one.intervals}
    return content | ({less: one.differences, f"{less}_intervals": one.difference_intervals} if less else {})


def samples_content(report: SampleReport) -> dict[str, Any]:
    """`metrics.json`'s `samples`: `n_images`, `overall`, `groups`, `tasks`.

    Each set holds its counts, `acc_mean_of_samples`, `acc_sd_between_samples`, `agreement`, and in
    `confidences` by name the scores of `response`, `agreement` and `mean_stated`, the last two with their
    differences from the first.
    """
    return {
        "n_images": report.n_images,
        OVERALL.lower(): _sampled_content(report.overall),
        "groups": {rows.name: _sampled_content(rows) for rows in report.groups},
        "tasks": {rows.name: _sampled_content(rows) for rows in report.tasks},
    }


_SAMPLE_COUNTS = (
    *("n", "fewest_samples", "most_samples", "n_tied", "n_without_majority"),
    *("acc_mean_of_samples", "acc_sd_between_samples", "agreement", "intervals"),
)


def _sampled_content(rows: SampledRows) -> dict[str, Any]:
    return {
        **{name: getattr(rows, name) for name in _SAMPLE_COUNTS},
        "confidences": {
            name: {
                "n_with_confidence": one.n,
                **_scores_content(one, "" if name == RESPONSE else "less_response"),
            }
            for name, one in rows.confidences.items()
        },
    }
