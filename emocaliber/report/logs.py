"""`metric.log` and `metric_conf.log`: the published tables, and under them where every row went."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emocaliber.report import tables
from emocaliber.report.confidences import ConfidenceReport
from emocaliber.report.confidences_section import confidences_section
from emocaliber.report.results import Evaluation, Summary
from emocaliber.report.samples import SampleReport
from emocaliber.report.samples_section import samples_section
from emocaliber.report.sections import sections, threshold_section, truth_section

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
