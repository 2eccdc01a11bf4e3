"""From scored rows to results: per task, per group and overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from emocaliber.metrics.calibration import ByChance, calibrated_by_chance, reliability_bins
from emocaliber.metrics.counts import LevelCounts
from emocaliber.metrics.intervals import (
    N_DRAWS,
    Resampled,
    interval,
    mean_over,
    resample,
)
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import SCORES, THRESHOLDS
from emocaliber.metrics.selective import selective_curve
from emocaliber.report.collector import Account, Collector, KnownTruth
from emocaliber.report.results import OVERALL, Evaluation, Summary, TaskMean, ThresholdRow
from emocaliber.report.truth import against_truth
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import GROUPS

_RUN = "run"  # the name of the only one


def evaluate(
    rows: Iterable[ScoredRow],
    failures: Mapping[str, str] | None = None,
    protocol: str = "default",
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> Evaluation:
    """Summarise scored rows, read once. Their order does not matter.

    Tasks come in the order of the tables, unknown ones after the nine; they have no group and are in Overall.

    Args:
        rows: scored by one protocol.
        failures: why a failed row failed, by row id; a row that is not in it counts as `error`.
        protocol: the name of that protocol.
        n_draws: bootstrap draws for the intervals; 0 for none.
        seed: of the draws.
    """
    collector = Collector()
    for row in rows:
        collector.add(row, (failures or {}).get(row.id, "error"))
    names = collector.tasks
    members = {
        group: tuple(name for name in names if collector.groups[name] == group)
        for group in GROUPS
        if group in collector.groups.values()
    }
    arrays = collector.rows()
    sets: dict[tuple[str, str], tuple[str, ...]] = {("task", name): (name,) for name in names}
    sets |= {("group", group): tasks for group, tasks in members.items()}
    sets |= {("group", OVERALL): tuple(names)}
    places = {key: [names.index(name) for name in tasks] for key, tasks in sets.items()}
    resampling = resample({_RUN: arrays}, places, n_draws, seed)
    resampled = {key: resampling.scored[_RUN, key] for key in sets}
    summaries = {
        key: _summary(
            key[1],
            [collector.accounts[task] for task in tasks],
            [collector.truths[task] for task in tasks if task in collector.truths],
            resampling.exact.levels(_RUN, key),
            resampling.drawn.levels(_RUN, key),
            calibrated_by_chance(resampling.drawn.levels(_RUN, key), n_draws, seed) if n_draws else None,
            resampled[key],
            _confusion(arrays, names.index(tasks[0]), collector.labels) if key[0] == "task" else {},
        )
        for key, tasks in sets.items()
    }
    return Evaluation(
        protocol=protocol,
        n_images=resampling.exact.n_images,
        n_draws=n_draws,
        seed=seed,
        tasks=tuple(summaries["task", name] for name in names),
        groups=tuple(summaries["group", group] for group in members),
        overall=summaries["group", OVERALL],
        tasks_of_group=members,
        task_means={
            name: _task_mean(
                resampled["group", name], [resampled["task", task] for task in sets["group", name]]
            )
            for name in (*members, OVERALL)
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
    return Summary(
        name=name,
        n=n,
        acc=scores["acc"],
        f1=scores["f1"],
        ece=scores["ece"],
        brier=scores["brier"],
        auroc=scores["auroc"],
        answered=account.status["answered"],
        unparsed=account.status["unparsed"],
        failed=account.status["failed"],
        unparsed_reasons=_by_frequency(account.unparsed_reasons),
        failed_reasons=_by_frequency(account.failed_reasons),
        flags=_by_frequency(account.flags),
        n_with_confidence=int(levels.n_stated),
        n_unparsed_with_confidence=account.n_unparsed_with_confidence,
        no_confidence_reasons=_by_frequency(account.no_confidence_reasons),
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
    pooled_auroc, within_auroc = pooled.value("auroc"), within.value("auroc")
    gain = None
    if pooled_auroc is not None and within_auroc is not None and len(tasks) > 1:
        gain = pooled_auroc - within_auroc
    return TaskMean(
        scores={score: within.value(score) for score in SCORES},
        intervals={score: within.interval(score) for score in SCORES},
        n_tasks={score: sum(task.value(score) is not None for task in tasks) for score in SCORES},
        pooling_gain=gain,
        pooling_gain_interval=interval(gain, pooled.draws["auroc"] - within.draws["auroc"]),
    )


def _by_frequency(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, ties alphabetically, so that no order of rows matters."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
