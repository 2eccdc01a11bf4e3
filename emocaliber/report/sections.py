"""The sections of `metric_conf.log` beyond the published tables: how sure each number is, what it hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emocaliber.metrics.intervals import Interval
from emocaliber.metrics.selective import COVERAGES, RISKS
from emocaliber.metrics.soft import LEAST_PROBABILITY
from emocaliber.report.results import Evaluation, Summary, TaskMean, Truth
from emocaliber.report.tables import free_table, percent, with_interval

Line = Sequence[str]

_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "The scores of the table above, with intervals",
        (("acc", "Acc"), ("f1", "F1"), ("ece", "ECE"), ("brier", "Brier"), ("auroc", "ROC AUC")),
    ),
    (
        "Calibration error by other bins and by none",
        (
            ("ece_equal_mass", "ECE, equal mass"),
            ("ece_debiased", "ECE, debiased"),
            ("smooth_ece", "Smooth ECE"),
        ),
    ),
    (
        "Brier score = miscalibration - discrimination + uncertainty (CORP)",
        (
            ("brier", "Brier"),
            ("brier_miscalibration", "Miscalibration"),
            ("brier_discrimination", "Discrimination"),
            ("brier_uncertainty", "Uncertainty"),
        ),
    ),
    (
        "Selective prediction (lower is better; rows without a confidence are kept last)",
        (
            ("aurc", "AURC"),
            ("eaurc", "E-AURC"),
            ("augrc", "AUGRC"),
            *((f"risk_at_coverage_{percent}", f"Risk at {percent} % kept") for percent in COVERAGES),
        ),
    ),
    (
        "Share of the rows that can be kept with at most this share of them wrong (higher is better)",
        tuple((f"coverage_at_risk_{percent}", f"Coverage at {percent} % risk") for percent in RISKS),
    ),
)


def sections(evaluation: Evaluation) -> list[str]:
    """Every further section, each a heading and a table."""
    if evaluation.n_draws:
        head = (
            f"Brackets: 95 % intervals by bootstrap over {evaluation.n_images} images "
            f"({evaluation.n_draws} draws, seed {evaluation.seed}), rows of one image drawn together\n"
            "  (percentiles; for ECEs, miscalibration and discrimination, which noise only lengthens, the\n"
            "  score less the errors of the draws: an interval below its score says that noise alone makes\n"
            "  as much; against the true label distributions: the normal approximation, clustered by image)"
        )
    else:
        head = "No intervals: 0 draws were asked for."
    first, *others = [_scores_section(evaluation, *section) for section in _SECTIONS]
    return [head, first, _chance_section(evaluation), *others, _discrimination_section(evaluation)]


def _scores_section(evaluation: Evaluation, title: str, columns: Sequence[tuple[str, str]]) -> str:
    def line(name: str, row: Summary | TaskMean) -> Line:
        return [name, *(with_interval(row.scores[score], row.intervals[score]) for score, _ in columns)]

    blocks = [
        [line(row.name, row) for row in evaluation.tasks],
        [line(row.name, row) for row in evaluation.groups],
        [line(row.name, row) for row in [evaluation.overall]],
        [line(f"{name}, task mean", mean) for name, mean in evaluation.task_means.items()],
    ]
    return f"{title}\n" + free_table(["Task/Group", *(heading for _, heading in columns)], blocks)


def _chance_section(evaluation: Evaluation) -> str:
    def line(row: Summary) -> Line:
        chance = row.by_chance
        shown = [percent(chance.mean if chance else None, 6), percent(chance.p95 if chance else None, 6)]
        beyond = row.ece is not None and chance is not None and row.ece > chance.p95
        return [row.name, percent(row.ece, 6), *shown, "" if chance is None else "yes" if beyond else "no"]

    blocks = [
        [line(row) for row in block] for block in (evaluation.tasks, evaluation.groups, [evaluation.overall])
    ]
    columns = ["Task/Group", "ECE", "By chance, mean", "95th percentile", "More than chance"]
    title = "ECE beside that of a perfectly calibrated model with the same confidences\n"
    return title + free_table(columns, blocks)


def _discrimination_section(evaluation: Evaluation) -> str:
    def line(row: Summary) -> Line:
        mean = evaluation.task_means[row.name]
        return [
            row.name,
            with_interval(row.auroc, row.intervals["auroc"]),
            with_interval(mean.scores["auroc"], mean.intervals["auroc"]),
            with_interval(mean.pooling_gain, mean.pooling_gain_interval),
            with_interval(row.scores["average_precision"], row.intervals["average_precision"]),
        ]

    columns = ["Group", "ROC AUC pooled", "Mean within tasks", "Gained by pooling", "Average precision"]
    title = "Discrimination: does a higher confidence go with a right answer\n"
    table = free_table(columns, [[line(row)] for row in evaluation.pooled])
    return "\n".join([title + table, *pooling_warnings(evaluation)])


def pooling_warnings(evaluation: Evaluation) -> list[str]:
    """A line for each group whose pooled AUROC is higher than within its tasks by more than chance."""
    lines = []
    for row in evaluation.pooled:
        mean = evaluation.task_means[row.name]
        if mean.pooling_gain_interval is not None and mean.pooling_gain_interval[0] > 0:
            lines.append(
                f"warning: pooling inflates the ROC AUC of {row.name}: {percent(row.auroc)} over all its "
                f"rows, {percent(mean.scores['auroc'])} within its tasks; the rest is how hard the tasks are"
            )
    return lines


def threshold_section(evaluation: Evaluation) -> str:
    """Accuracy, F1 and coverage per group and confidence threshold, one block a group."""
    blocks = [
        [
            [
                row.name,
                at.threshold,
                *(
                    with_interval(at.scores[score], at.intervals[score])
                    for score in ("acc", "f1", "coverage")
                ),
                str(at.n),
            ]
            for at in row.thresholds
        ]
        for row in evaluation.pooled
    ]
    title = "Answers whose confidence is at least a threshold (Coverage: their share of all rows)\n"
    return title + free_table(["Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples"], blocks)


def truth_section(evaluation: Evaluation) -> str | None:
    """What was reached beside what can be reached, None where no row's label distribution is known."""
    overall = evaluation.overall.truth
    if overall is None:
        return None
    blocks = [
        [line for row in block if (line := _truth_line(row))]
        for block in (evaluation.tasks, evaluation.groups, [evaluation.overall])
    ]
    columns = ["Task/Group", "Acc", "Bayes Acc", "Acc/Bayes", "Confidence gap", "#Samples"]
    lines = [
        f"Against the true label distributions, known for {overall.n} of {evaluation.overall.n} rows:",
        "  Bayes Acc: expected accuracy of always naming the most probable label",
        "    (the mean of the largest p(label | image); a finite sample can lie a little above or below)",
        "  Confidence gap: mean |c - p(answer | image)| over the rows with a confidence c, "
        f"{overall.n_with_confidence} in all",
        free_table(columns, blocks),
    ]
    return "\n".join([*lines, "", *_forecast_lines(evaluation, overall)])


def _truth_line(row: Summary) -> Line | None:
    truth = row.truth
    if truth is None:
        return None
    scores: Mapping[str, float | None] = {
        name: getattr(truth, name) for name in ("acc", "bayes_acc", "acc_over_bayes", "gap")
    }
    return [
        row.name,
        *(with_interval(score, truth.intervals[name]) for name, score in scores.items()),
        str(truth.n),
    ]


def _forecast_lines(evaluation: Evaluation, overall: Truth) -> list[str]:
    blocks = [
        [_forecast_line(row.name, row.truth) for row in block if row.truth is not None]
        for block in (evaluation.tasks, evaluation.groups, [evaluation.overall])
    ]
    columns = ["Task/Group", "Expected Acc", "Soft ECE", "Cross-entropy", "KL", "Brier", "#Forecasts"]
    return [
        "Against the distribution p, as a forecast q: c on the answer, 1 - c evenly on the other labels",
        f"  Expected Acc: mean p(answer | image) over all {overall.n} rows, 0 without an answer",
        f"  Soft ECE: ECE of the {overall.n_with_confidence} rows with a confidence, p(answer | image) in "
        "place of right or wrong (no interval)",
        f"  Over the {overall.forecast.n} rows with an answer and a confidence, "
        f"{overall.n - overall.forecast.n} left out:",
        "    Cross-entropy of p and q, and KL, its excess over the entropy of p, in nats; "
        f"c cut to [{LEAST_PROBABILITY}, {1 - LEAST_PROBABILITY}]",
        "    Brier: sum of (q - p)^2 over the labels, x 100",
        free_table(columns, blocks),
    ]


def _forecast_line(name: str, truth: Truth) -> Line:
    forecast = truth.forecast
    intervals = forecast.intervals
    return [
        name,
        with_interval(forecast.expected_acc, intervals["expected_acc"]),
        percent(forecast.soft_ece, 6),
        _in_nats(forecast.cross_entropy, intervals["cross_entropy"]),
        _in_nats(forecast.kl, intervals["kl"]),
        with_interval(forecast.brier, intervals["brier"]),
        str(forecast.n),
    ]


def _in_nats(score: float | None, interval: Interval | None) -> str:
    if score is None or interval is None:
        return "N/A" if score is None else f"{score:.4f}"
    return f"{score:.4f} [{interval[0]:.3f}, {interval[1]:.3f}]"
