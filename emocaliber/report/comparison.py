"""Runs over the same rows compared: paired differences, how sure they are, and what each run scored.

Every draw of the bootstrap takes the same images for all runs, so that what makes an image hard for all of
them cancels in the differences (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from emocaliber.metrics.counts import IntArray
from emocaliber.metrics.intervals import (
    Resampled,
    difference,
    holm,
    interval,
    mean_over,
    p_value,
    resample,
)
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import compared_scores
from emocaliber.report.alignment import Alignment, RunAccount
from emocaliber.report.comparison_results import COMPARED, Comparison, Difference, McNemar, Pair, RowSet
from emocaliber.report.results import OVERALL
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import GROUPS

N_DRAWS = 5000
"""Enough that Holm's correction over 90 tests can still come out below 0.05."""


def compare(
    runs: Iterable[tuple[str, Iterable[ScoredRow]]], n_draws: int = N_DRAWS, seed: int = 0
) -> Comparison:
    """Compare every run with the first. Neither the order of rows nor that of the other runs matters.

    Args:
        runs: (name, scored rows) of each, read once, one after the other; names are unique.
        n_draws: bootstrap draws over images; 0 gives differences without intervals and p-values.
        seed: of the draws.
    Raises:
        MismatchError: the runs do not hold the same rows.
    """
    alignment = Alignment()
    for name, rows in runs:
        alignment.add_run(name, rows)
    arrays = alignment.aligned()
    sets = _sets(alignment, arrays[0])
    places = {one: [alignment.tasks.index(task) for task in one.tasks] for one in sets}
    resampling = resample(dict(enumerate(arrays)), places, n_draws, seed, compared_scores, _joint_cells)
    resampled = resampling.scored
    runs_range = range(len(arrays))
    of_task = {one.name: one for one in sets if one.kind == "task"}
    means = {
        one: [mean_over([resampled[run, of_task[task]] for task in one.tasks]) for run in runs_range]
        for one in sets
        if one.kind != "task"
    }
    return Comparison(
        runs=tuple(alignment.accounts),
        n_images=resampling.exact.n_images,
        n_draws=n_draws,
        seed=seed,
        sets=sets,
        values={one: tuple(_values(resampled[run, one]) for run in runs_range) for one in sets},
        task_means={one: tuple(map(_values, parts)) for one, parts in means.items()},
        pairs=tuple(
            _pair(
                alignment.accounts[run],
                {one: _differences(resampled[0, one], resampled[run, one]) for one in sets},
                {one: _mcnemar(arrays[0], arrays[run], places[one]) for one in sets},
            )
            for run in runs_range[1:]
        ),
    )


def _joint_cells(runs: Sequence[Rows]) -> IntArray:
    """One number a row for what it says in all runs."""
    said = np.stack([rows.cell for rows in runs], axis=1)
    _, first, kind = np.unique(said, axis=0, return_index=True, return_inverse=True)
    # By where each occurs first, the rows being in the order of their ids: so the draws do not depend on the
    # order of the runs.
    return first[kind.ravel()]


def _sets(alignment: Alignment, rows: Rows) -> tuple[RowSet, ...]:
    names = alignment.tasks
    sizes = np.bincount(rows.task, minlength=len(names)).tolist()
    sets = [RowSet("task", name, (name,), n) for name, n in zip(names, sizes, strict=True)]
    for group in GROUPS:
        inside = [name for name in names if alignment.groups[name] == group]
        if inside:
            sets.append(
                RowSet("group", group, tuple(inside), sum(sizes[names.index(name)] for name in inside))
            )
    return (*sets, RowSet("overall", OVERALL, tuple(names), sum(sizes)))


def _values(resampled: Resampled) -> dict[str, float | None]:
    return {score: resampled.value(score) for score in COMPARED}


def _differences(first: Resampled, other: Resampled) -> dict[str, Difference]:
    """Every score of the other less that of the first."""
    differences = {}
    for score in COMPARED:
        value, draws = difference(first, other, score)
        found = None if value is None else p_value(draws)
        differences[score] = Difference(value, interval(value, draws), found)
    return differences


def _pair(
    run: RunAccount, differences: Mapping[RowSet, dict[str, Difference]], mcnemar: dict[RowSet, McNemar]
) -> Pair:
    # A group of a single task is the same rows again: its tests are no further ones.
    p_values = {
        (one.tasks, score): found.p
        for one, scores in differences.items()
        for score, found in scores.items()
        if found.p is not None
    }
    p_holm = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    corrected = {
        one: {score: replace(found, p_holm=p_holm.get((one.tasks, score))) for score, found in scores.items()}
        for one, scores in differences.items()
    }
    return Pair(run, corrected, mcnemar, len(p_values))


def _mcnemar(first: Rows, other: Rows, tasks: Sequence[int]) -> McNemar:
    """McNemar's exact test (1947) that either run is as often the only right one, rows independent."""
    from scipy.stats import binomtest

    inside = np.isin(first.task, tasks)
    right = [(rows.label == rows.truth)[inside] for rows in (first, other)]
    only_first = int((right[0] & ~right[1]).sum())
    only_other = int((right[1] & ~right[0]).sum())
    n = only_first + only_other
    p = float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0
    return McNemar(only_first, only_other, min(1.0, p))
