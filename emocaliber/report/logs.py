"""`metric.log` and `metric_conf.log`: the published tables, and under them where every row went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from emocaliber.metrics.calibration import LEAST_PROBABILITY
from emocaliber.metrics.intervals import Interval
from emocaliber.metrics.selective import COVERAGES, RISKS
from emocaliber.report import tables
from emocaliber.report.confidences import ConfidenceReport, SampleReport
from emocaliber.report.confidences_section import confidences_section, samples_section
from emocaliber.report.summary import (
    GAP,
    Evaluation,
    Summary,
    TaskMean,
    ThresholdRow,
    Truth,
    pooling_warnings,
)
from emocaliber.report.tables import free_table, own_interval, percent, with_interval

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
        return [name, *(own_interval(row, score) for score, _ in columns)]

    blocks = [[line(row.name, row) for row in block] for block in evaluation.blocks]
    blocks.append([line(f"{name}, task mean", mean) for name, mean in evaluation.task_means.items()])
    return f"{title}\n" + free_table(["Task/Group", *(heading for _, heading in columns)], blocks)


def _chance_section(evaluation: Evaluation) -> str:
    def line(row: Summary) -> Line:
        chance = row.by_chance
        shown = [percent(chance.mean if chance else None, 6), percent(chance.p95 if chance else None, 6)]
        beyond = row.ece is not None and chance is not None and row.ece > chance.p95
        return [row.name, percent(row.ece, 6), *shown, "" if chance is None else "yes" if beyond else "no"]

    blocks = [list(map(line, block)) for block in evaluation.blocks]
    columns = ["Task/Group", "ECE", "By chance, mean", "95th percentile", "More than chance"]
    title = "ECE beside that of a perfectly calibrated model with the same confidences\n"
    return title + free_table(columns, blocks)


def _discrimination_section(evaluation: Evaluation) -> str:
    def line(row: Summary) -> Line:
        mean = evaluation.task_means[row.name]
        return [
            row.name,
            with_interval(row.auroc, row.intervals["auroc"]),
            own_interval(mean, "auroc"),
            with_interval(mean.auroc_gained_by_pooling, mean.auroc_gained_by_pooling_interval),
            own_interval(row, "average_precision"),
        ]

    columns = ["Group", "ROC AUC pooled", "Mean within tasks", "Gained by pooling", "Average precision"]
    title = "Discrimination: does a higher confidence go with a right answer\n"
    table = free_table(columns, [[line(row)] for row in evaluation.pooled])
    return "\n".join([title + table, *pooling_warnings(evaluation)])


def threshold_section(evaluation: Evaluation) -> str:
    """Accuracy, F1 and coverage per group and confidence threshold, one block a group."""

    def line(name: str, at: ThresholdRow) -> Line:
        shown = (own_interval(at, score) for score in ("acc", "f1", "coverage"))
        return [name, at.threshold, *shown, str(at.n)]

    blocks = [[line(row.name, at) for at in row.thresholds] for row in evaluation.pooled]
    title = "Answers whose confidence is at least a threshold (Coverage: their share of all rows)\n"
    return title + free_table(["Group", "Conf >=", "Acc", "F1", "Coverage", "#Samples"], blocks)


def truth_section(evaluation: Evaluation) -> str | None:
    """What was reached beside what can be reached, None where no row's label distribution is known."""
    overall = evaluation.overall.truth
    if overall is None:
        return None
    blocks = [[_truth_line(row.name, row.truth) for row in block if row.truth] for block in evaluation.blocks]
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


def _truth_line(name: str, truth: Truth) -> Line:
    scores = ("acc", "bayes_acc", "acc_over_bayes", GAP)
    return [name, *(with_interval(getattr(truth, one), truth.intervals[one]) for one in scores), str(truth.n)]


def _forecast_lines(evaluation: Evaluation, overall: Truth) -> list[str]:
    blocks = [
        [_forecast_line(row.name, row.truth) for row in block if row.truth] for block in evaluation.blocks
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
        *(
            _in_nats(getattr(forecast, score), intervals[score])
            for score in ("cross_entropy_nats", "kl_nats")
        ),
        with_interval(forecast.brier_over_labels, intervals["brier_over_labels"]),
        str(forecast.n),
    ]


def _in_nats(score: float | None, interval: Interval | None) -> str:
    if score is None or interval is None:
        return "N/A" if score is None else f"{score:.4f}"
    return f"{score:.4f} [{interval[0]:.3f}, {interval[1]:.3f}]"


_MOST_REASONS = 12


def metric_log(evaluation: Evaluation) -> str:
    """The text of `metric.log`: table, row counts, tab-separated lines."""
    rows = [*evaluation.tasks, evaluation.overall]
    return "\n\n".join([metric_part(evaluation), tables.tab_separated(rows, tables.ACCURACY_FIELDS)]) + "\n"


def metric_conf_log(
    evaluation: Evaluation,
    samples: SampleReport | None = None,
    confidences: ConfidenceReport | None = None,
) -> str:
    """The text of `metric_conf.log`: what is printed, the further sections, tab-separated lines.

    `samples`: the rows with several samples, `confidences`: those with several confidences, if there are any.
    """
    parts = [
        confidence_part(evaluation),
        *sections(evaluation),
        threshold_section(evaluation),
        *([samples_section(samples, evaluation.overall.n)] if samples else []),
        *([confidences_section(confidences)] if confidences else []),
        tables.tab_separated([*evaluation.tasks, *evaluation.pooled], tables.CONFIDENCE_FIELDS),
    ]
    return "\n\n".join(parts) + "\n"


def metric_part(evaluation: Evaluation) -> str:
    """The part of `metric.log` that is printed as well: the table and the row counts under it."""
    return "\n".join([tables.metric_table(evaluation.tasks, evaluation.overall), *_row_counts(evaluation)])


def confidence_part(evaluation: Evaluation) -> str:
    """The part of `metric_conf.log` that is printed as well: table, counts, truth where it is known."""
    table = tables.confidence_table(evaluation.tasks, evaluation.groups, evaluation.overall)
    part = "\n".join([table, *_row_counts(evaluation), *_confidence_counts(evaluation)])
    truth = truth_section(evaluation)
    return f"{part}\n\n{truth}" if truth else part


def _row_counts(evaluation: Evaluation) -> list[str]:
    rows = evaluation.overall
    lines = [
        f"Rows: {rows.n} = {rows.answered} answered + {rows.unparsed} unparsed + {rows.failed} failed",
        "  (an unparsed or failed row counts as wrong in Acc and as the label unknown in F1)",
    ]
    lines += _reasons(evaluation, "unparsed", lambda summary: summary.unparsed_reasons)
    lines += _reasons(evaluation, "failed", lambda summary: summary.failed_reasons)
    return lines + _reasons(evaluation, "flagged", lambda summary: summary.flags)


def _confidence_counts(evaluation: Evaluation) -> list[str]:
    rows = evaluation.overall
    lines = [
        f"Confidence: {rows.n_with_confidence} of {rows.n} rows state one",
        "  (ECE over 10 bins, Brier and ROC AUC are over these; "
        f"{rows.n_unparsed_with_confidence} of them unparsed, counting as wrong)",
    ]
    return lines + _reasons(evaluation, "without confidence", lambda summary: summary.no_confidence_reasons)


def _reasons(
    evaluation: Evaluation, kind: str, counts_of: Callable[[Summary], Mapping[str, int]]
) -> list[str]:
    """One line a reason: how many rows, and of which tasks."""
    counts = counts_of(evaluation.overall)
    lines = []
    for reason, n in list(counts.items())[:_MOST_REASONS]:
        shares = [(task.name, counts_of(task).get(reason, 0)) for task in evaluation.tasks]
        where = ", ".join(f"{tables.short_name(name)} {share}" for name, share in shares if share)
        lines.append(f"  {kind}, {tables.short_name(reason)}: {n} ({where})")
    rest = list(counts.values())[_MOST_REASONS:]
    if rest:
        lines.append(f"  {kind}, {len(rest)} more reasons: {sum(rest)} (see metrics.json)")
    return lines
