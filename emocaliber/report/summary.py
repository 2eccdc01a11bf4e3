"""What scored rows amount to, per task, per group and overall: the numbers behind every log and figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from emocaliber import metrics
from emocaliber.report.tables import Scores
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import GROUPS, task_sort_key

SCORES = ("acc", "f1", "ece", "brier", "auroc")
OVERALL = "Overall"


@dataclass(frozen=True)
class Truth:
    """Against the stored label distribution of each image, over the `n` rows that have one; all in [0, 1].

    `gap` is the mean |c - p(answer | image)| over the `n_with_confidence` of them that state a confidence, an
    unparsed answer having chance 0 to be right.
    """

    n: int
    n_with_confidence: int
    acc: float | None
    bayes_acc: float | None
    gap: float | None


@dataclass(frozen=True, kw_only=True)
class Summary(Scores):
    """The scores of a set of rows with the account of where every row went.

    n = answered + unparsed + failed. Accuracy and F1 are over all n rows, the calibration scores over the
    `n_with_confidence` rows that state a confidence; `n_unparsed_with_confidence` of these have no answer and
    count as wrong.
    """

    answered: int
    unparsed: int
    failed: int
    unparsed_reasons: dict[str, int]
    failed_reasons: dict[str, int]
    flags: dict[str, int]
    n_with_confidence: int
    n_unparsed_with_confidence: int
    no_confidence_reasons: dict[str, int]
    thresholds: tuple[metrics.ThresholdRow, ...]
    bins: tuple[metrics.ReliabilityBin, ...]
    curve: tuple[metrics.CurvePoint, ...]
    truth: Truth | None


@dataclass(frozen=True)
class TaskMean:
    """The plain mean of each score over the `n_tasks` tasks in which it is defined."""

    scores: dict[str, float | None]
    n_tasks: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported about one set of predictions; tasks and groups in the tables' order."""

    protocol: str
    tasks: tuple[Summary, ...]
    groups: tuple[Summary, ...]
    overall: Summary
    tasks_of_group: dict[str, tuple[str, ...]]
    task_means: dict[str, TaskMean]


def evaluate(
    rows: Sequence[ScoredRow], failures: Mapping[str, str] | None = None, protocol: str = "default"
) -> Evaluation:
    """Summarise scored rows. Their order does not matter.

    Tasks come in the order of the tables, unknown ones after the nine; they have no group and are in Overall.

    Args:
        rows: scored by one protocol.
        failures: why a failed row failed, by row id; a row that is not in it counts as `error`.
        protocol: the name of that protocol.
    """
    why = failures or {}
    by_task: dict[str, list[ScoredRow]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    tasks = {name: summarise(name, by_task[name], why) for name in sorted(by_task, key=task_sort_key)}
    members = {
        group: tuple(name for name in tasks if by_task[name][0].group == group)
        for group in GROUPS
        if any(row.group == group for row in rows)
    }
    groups = tuple(summarise(group, [row for row in rows if row.group == group], why) for group in members)
    means = {group: task_mean([tasks[name] for name in names]) for group, names in members.items()}
    return Evaluation(
        protocol=protocol,
        tasks=tuple(tasks.values()),
        groups=groups,
        overall=summarise(OVERALL, rows, why),
        tasks_of_group=members,
        task_means={**means, OVERALL: task_mean(list(tasks.values()))},
    )


def task_mean(tasks: Sequence[Scores]) -> TaskMean:
    """Average each score over tasks, each task weighing the same."""
    values = {score: [v for task in tasks if (v := getattr(task, score)) is not None] for score in SCORES}
    return TaskMean(
        scores={score: metrics.mean(values[score]) for score in SCORES},
        n_tasks={score: len(values[score]) for score in SCORES},
    )


def summarise(name: str, rows: Sequence[ScoredRow], failures: Mapping[str, str]) -> Summary:
    """Score a set of rows and account for each of them; `failures` as in `evaluate`."""
    stated = [(row.confidence, row.correct) for row in rows if row.confidence is not None]
    confidence: list[Decimal] = [c for c, _ in stated]
    stated_correct = [right for _, right in stated]
    truth = [row.truth for row in rows]
    predicted = [row.label for row in rows]
    correct = [row.correct for row in rows]
    every_confidence = [row.confidence for row in rows]
    status = Counter(row.status for row in rows)
    return Summary(
        name=name,
        n=len(rows),
        acc=metrics.accuracy(correct),
        f1=metrics.weighted_f1(truth, predicted),
        ece=metrics.ece(confidence, stated_correct),
        brier=metrics.brier(confidence, stated_correct),
        auroc=metrics.auroc(confidence, stated_correct),
        answered=status["answered"],
        unparsed=status["unparsed"],
        failed=status["failed"],
        unparsed_reasons=_counts(row.label_reason for row in rows if row.status == "unparsed"),
        failed_reasons=_counts(failures.get(row.id, "error") for row in rows if row.status == "failed"),
        flags=_counts(flag for row in rows for flag in row.flags),
        n_with_confidence=len(stated),
        n_unparsed_with_confidence=sum(
            row.status == "unparsed" and row.confidence is not None for row in rows
        ),
        no_confidence_reasons=_counts(
            "failed" if row.status == "failed" else row.confidence_reason
            for row in rows
            if row.confidence is None
        ),
        thresholds=tuple(metrics.threshold_table(truth, predicted, correct, every_confidence)),
        bins=tuple(metrics.reliability_bins(confidence, stated_correct)),
        curve=tuple(metrics.selective_curve(correct, every_confidence)),
        truth=_against_truth(rows),
    )


def _against_truth(rows: Iterable[ScoredRow]) -> Truth | None:
    known = [(row, row.posterior) for row in rows if row.posterior]
    if not known:
        return None
    stated = [
        (row.confidence, posterior.get(row.label, 0.0) if row.label is not None else 0.0)
        for row, posterior in known
        if row.confidence is not None
    ]
    return Truth(
        n=len(known),
        n_with_confidence=len(stated),
        acc=metrics.accuracy([row.correct for row, _ in known]),
        bayes_acc=metrics.bayes_accuracy([max(posterior.values()) for _, posterior in known]),
        gap=metrics.truth_gap([c for c, _ in stated], [p for _, p in stated]),
    )


def _counts(reasons: Iterable[str | None]) -> dict[str, int]:
    """Count per reason, the most frequent first, ties alphabetically, so that no order of rows matters."""
    counted = Counter(reason or "unknown" for reason in reasons)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
