"""From scored rows to results: per task, per group and overall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emocaliber.metrics.calibration import (
    ByChance,
    ReliabilityBin,
    bayes_accuracy,
    calibrated_by_chance,
    forecast_scores,
    reliability_bins,
    soft_ece,
)
from emocaliber.metrics.counts import FloatArray, IntArray, LevelCounts, mean
from emocaliber.metrics.intervals import (
    N_DRAWS,
    Interval,
    Resampled,
    difference,
    interval,
    mean_interval,
    mean_over,
    resample,
)
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import SCORES, THRESHOLDS
from emocaliber.metrics.selective import CurvePoint, selective_curve
from emocaliber.report.collector import Account, Collector, KnownTruth, by_frequency
from emocaliber.report.tables import BySet, Scores, by_kind, percent, task_sets
from emocaliber.scoring import ScoredRow


@dataclass(frozen=True)
class ThresholdRow:
    """The rows kept at one threshold; scores in [0, 1] with 95 % intervals, None where nothing is kept.

    `scores` and `intervals` by name: `acc`, `f1`, `coverage`.
    """

    threshold: str
    n: int
    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]


GAP = "mean_abs_confidence_minus_posterior"
_OF_FORECASTS = {"cross_entropy_nats": "cross_entropy", "kl_nats": "kl", "brier_over_labels": "brier"}


@dataclass(frozen=True)
class Forecast:
    """Answer and confidence as a forecast of the label distribution, see `metrics.soft`; means over rows.

    `expected_acc`, in [0, 1]: the chance that the answer is right, 0 for a row without one, over all rows of
    the `Truth`. `soft_ece`, in [0, 1]: the ECE against that chance, over its `n_with_confidence` rows.
    `cross_entropy_nats`, `kl_nats`, `brier_over_labels` (in [0, 2]): over the `n` rows with an answer and a
    confidence.
    `intervals` by name; the soft ECE is no mean and has none.
    """

    n: int
    expected_acc: float | None
    soft_ece: float | None
    cross_entropy_nats: float | None
    kl_nats: float | None
    brier_over_labels: float | None
    intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Truth:
    """Against the stored label distribution of each image, over the `n` rows that have one; all in [0, 1].

    `acc_over_bayes` is the accuracy as a share of the best that can be expected. The mean of
    |c - p(answer | image)| is over the `n_with_confidence` of them that state one, an unparsed answer
    having chance 0 to be right. `intervals`: of these four, by name.
    """

    n: int
    n_with_confidence: int
    acc: float | None
    bayes_acc: float | None
    acc_over_bayes: float | None
    mean_abs_confidence_minus_posterior: float | None
    intervals: dict[str, Interval | None]
    forecast: Forecast


@dataclass(frozen=True, kw_only=True)
class Summary(Scores):
    """The scores of a set of rows with the account of where every row went.

    n = answered + unparsed + failed. Accuracy, F1 and the selective scores are over all n rows, the
    calibration scores over the `n_with_confidence` rows that state a confidence;
    `n_unparsed_with_confidence` of these have no answer and count as wrong. `scores` holds every one of
    `SCORES`, `intervals` its 95 % interval. `by_chance`: the ECE that honest confidences would show. `curve`:
    at most 1,000 points (`Rows.coarsened`). `confusion`: rows by (true label, answer or None).
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
    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]
    by_chance: ByChance | None
    thresholds: tuple[ThresholdRow, ...]
    bins: tuple[ReliabilityBin, ...]
    curve: tuple[CurvePoint, ...]
    confusion: dict[tuple[str, str | None], int]
    truth: Truth | None


@dataclass(frozen=True)
class TaskMean:
    """The plain mean of each score over the `n_tasks` tasks in which it is defined, with 95 % intervals.

    `auroc_gained_by_pooling`: AUROC of all rows less the mean AUROC within the tasks, and its interval.
    """

    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]
    n_tasks: dict[str, int]
    auroc_gained_by_pooling: float | None
    auroc_gained_by_pooling_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Evaluation(BySet[Summary]):
    """Everything that is reported about one set of predictions by the default protocol."""

    n_images: int
    n_draws: int
    seed: int
    tasks_of_group: dict[str, tuple[str, ...]]
    task_means: dict[str, TaskMean]


def against_truth(parts: Sequence[KnownTruth], *, with_intervals: bool) -> Truth | None:
    """Measure the rows of some tasks whose label distribution is known; None where there are none."""
    if not parts:
        return None
    columns = [part.columns() for part in parts]
    rows = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    right = rows["right"].astype(np.float64)
    stated = ~np.isnan(rows["confidence"])
    gap = np.abs(rows["confidence"] - rows["chance"])[stated]
    ones = np.ones(len(right))
    intervals = {
        "acc": (right, ones, rows["image"]),
        "bayes_acc": (rows["largest"], ones, rows["image"]),
        "acc_over_bayes": (right, rows["largest"], rows["image"]),
        GAP: (gap, ones[stated], rows["image"][stated]),
    }
    acc, bayes_acc = mean(right.tolist()), bayes_accuracy(rows["largest"].tolist())
    return Truth(
        n=len(right),
        n_with_confidence=int(stated.sum()),
        acc=acc,
        bayes_acc=bayes_acc,
        acc_over_bayes=acc / bayes_acc if acc is not None and bayes_acc else None,
        mean_abs_confidence_minus_posterior=mean(gap.tolist()),
        intervals={
            name: _interval(name, *arguments) if with_intervals else None
            for name, arguments in intervals.items()
        },
        forecast=_forecast(rows, stated, with_intervals=with_intervals),
    )


def _forecast(rows: dict[str, NDArray[Any]], stated: NDArray[np.bool_], *, with_intervals: bool) -> Forecast:
    is_forecast = stated & (rows["answered"] == 1)
    per_row = forecast_scores(
        *(rows[name][is_forecast] for name in ("confidence", "chance", "n_labels", "entropy", "squares"))
    )
    per_row = {name: per_row[score] for name, score in _OF_FORECASTS.items()}
    values = {"expected_acc": rows["chance"], **per_row}
    means = {name: mean(value.tolist()) for name, value in values.items()}
    images = {name: rows["image"][is_forecast] for name in per_row} | {"expected_acc": rows["image"]}
    return Forecast(
        n=int(is_forecast.sum()),
        soft_ece=soft_ece(rows["confidence"][stated], rows["tenth"][stated], rows["chance"][stated]),
        **means,
        intervals={
            name: _interval(name, value, np.ones(len(value)), images[name]) if with_intervals else None
            for name, value in values.items()
        },
    )


# What a mean cannot exceed; none can be below 0.
_HIGHEST = {"acc": 1.0, "bayes_acc": 1.0, GAP: 1.0, "expected_acc": 1.0, "brier_over_labels": 2.0}


def _interval(name: str, values: FloatArray, weights: FloatArray, image: IntArray) -> Interval | None:
    """The interval of a mean, cut to the values that it can have."""
    found = mean_interval(values, weights, image)
    return None if found is None else (max(0.0, found[0]), min(_HIGHEST.get(name, inf), found[1]))


def evaluate(rows: Iterable[ScoredRow], n_draws: int = N_DRAWS, seed: int = 0) -> Evaluation:
    """Summarise scored rows of which it is not told why some failed; their order does not matter."""
    collector = Collector()
    for row in rows:
        collector.add(row)
    return summarise(collector, n_draws, seed)


_RUN = "run"  # the name of the only one


def summarise(collector: Collector, n_draws: int = N_DRAWS, seed: int = 0) -> Evaluation:
    """Give every number of the rows in a collector, which does not depend on their order.

    Tasks come in the order of the tables, unknown ones after the nine; they have no group and are in Overall.

    Args:
        collector: holds rows scored by the default protocol.
        n_draws: bootstrap draws for the intervals; 0 for none.
        seed: of the draws.
    """
    names, arrays = collector.tasks, collector.rows()
    sets = task_sets(names, collector.groups)
    places = {one: [names.index(name) for name in one.tasks] for one in sets}
    resampling = resample({_RUN: arrays}, places, n_draws, seed)
    resampled = {one: resampling.scored[_RUN, one] for one in sets}
    summaries = {
        one: _summary(
            one.name,
            [collector.accounts[task] for task in one.tasks],
            [collector.truths[task] for task in one.tasks if task in collector.truths],
            resampling.exact.levels(_RUN, one),
            resampling.drawn.levels(_RUN, one),
            calibrated_by_chance(resampling.drawn.levels(_RUN, one), n_draws, seed) if n_draws else None,
            resampled[one],
            _confusion(arrays, places[one][0], collector.labels) if one.kind == "task" else {},
        )
        for one in sets
    }
    of_task = {one.name: resampled[one] for one in sets if one.kind == "task"}
    return Evaluation(
        n_images=resampling.exact.n_images,
        n_draws=n_draws,
        seed=seed,
        **by_kind(summaries),
        tasks_of_group={one.name: one.tasks for one in sets if one.kind == "group"},
        task_means={
            one.name: _task_mean(resampled[one], [of_task[task] for task in one.tasks])
            for one in sets
            if one.kind != "task"
        },
    )


def _summary(
    name: str,
    accounts: Sequence[Account],
    truths: Sequence[KnownTruth],
    levels: LevelCounts,
    coarse: LevelCounts,
    by_chance: ByChance | None,
    resampled: Resampled,
    confusion: dict[tuple[str, str | None], int],
) -> Summary:
    account = reduce(add, accounts, Account())
    n = account.status.total()
    scores = {score: resampled.value(score) for score in SCORES}
    counted: dict[str, Any] = {score: scores[score] for score in ("acc", "f1", "ece", "brier", "auroc")}
    counted |= {status: account.status[status] for status in ("answered", "unparsed", "failed")}
    counted |= {name: by_frequency(getattr(account, name)) for name in Account.REASONS}
    return Summary(
        name=name,
        n=n,
        **counted,
        n_with_confidence=int(levels.n_stated),
        n_unparsed_with_confidence=account.n_unparsed_with_confidence,
        scores=scores,
        intervals={score: resampled.interval(score) for score in SCORES},
        by_chance=by_chance,
        thresholds=tuple(_threshold_row(threshold, resampled, n) for threshold in THRESHOLDS),
        bins=tuple(reliability_bins(levels, by_chance.band if by_chance else None)),
        curve=tuple(selective_curve(coarse)),
        confusion=confusion,
        truth=against_truth(truths, with_intervals=len(resampled.draws["acc"]) > 0),
    )


def _threshold_row(threshold: str, resampled: Resampled, n: int) -> ThresholdRow:
    names = {name: f"{name}_at_{threshold}" for name in ("acc", "f1", "coverage")}
    scores = {name: resampled.value(score) for name, score in names.items()}
    return ThresholdRow(
        threshold=threshold,
        n=round((scores["coverage"] or 0.0) * n),
        scores=scores,
        intervals={name: resampled.interval(score) for name, score in names.items()},
    )


def _confusion(rows: Rows, task: int, labels: Sequence[str]) -> dict[tuple[str, str | None], int]:
    inside = rows.task == task
    pairs, counts = np.unique(np.stack([rows.truth[inside], rows.label[inside]]), axis=1, return_counts=True)
    return {
        (labels[truth], labels[label] if label >= 0 else None): int(n)
        for truth, label, n in zip(*pairs.tolist(), counts.tolist(), strict=True)
    }


def _task_mean(pooled: Resampled, tasks: Sequence[Resampled]) -> TaskMean:
    within = mean_over(tasks)
    gain, draws = difference(within, pooled, "auroc")
    if len(tasks) == 1:
        gain = None
    return TaskMean(
        scores={score: within.value(score) for score in SCORES},
        intervals={score: within.interval(score) for score in SCORES},
        n_tasks={score: sum(task.value(score) is not None for task in tasks) for score in SCORES},
        auroc_gained_by_pooling=gain,
        auroc_gained_by_pooling_interval=interval(gain, draws),
    )


def pooling_warnings(evaluation: Evaluation) -> list[str]:
    """A line for each group whose pooled AUROC is higher than within its tasks by more than chance."""
    lines = []
    for row in evaluation.pooled:
        mean = evaluation.task_means[row.name]
        if mean.auroc_gained_by_pooling_interval is not None and mean.auroc_gained_by_pooling_interval[0] > 0:
            lines.append(
                f"warning: pooling inflates the ROC AUC of {row.name}: {percent(row.auroc)} over all its "
                f"rows, {percent(mean.scores['auroc'])} within its tasks; the rest is how hard the tasks are"
            )
    return lines
