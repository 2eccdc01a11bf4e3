"""What each run of the stages scores, with bootstrap draws over images: predictions in, scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emocaliber.jsonl import RecordError
from emocaliber.metrics.calibration import auroc, brier, ece, smooth_ece
from emocaliber.metrics.counts import FloatArray, ratio
from emocaliber.metrics.intervals import Resampled, Resampling, draw_weights, mean_over, resample
from emocaliber.metrics.posthoc import FITS, fit_per_task
from emocaliber.metrics.rows import GroupCounts
from emocaliber.metrics.scores import accuracy
from emocaliber.records import iterate_records, most_probable
from emocaliber.report.comparison import Alignment
from emocaliber.scoring import ScoredRow, score
from emocaliber.taxonomy import GROUPS
from train.stages.perception import facts_right, mean

BOTH_LOW = 0.1
"""A deliberate error at low confidence: a row that names a label other than the most probable one, of true
probability below this, and states a confidence of this or less."""

STAGE1, STAGE2, STAGE3 = "stage1", "stage2", "stage3_"
"""Names of runs; after STAGE3 comes the reward."""
HELD_OUT = "stage2_held_out"
OPTIMUM = "optimum"
PER_TASK = ", per task"

Key = tuple[str, str]  # seed, name of the run
Scores = dict[Key, dict[str, Resampled]]


@dataclass(frozen=True)
class Run:
    """Scored rows, and the share of scene facts that each row's reasoning states right, NaN where unknown."""

    rows: Sequence[ScoredRow]
    facts: Sequence[float]


def read_run(file: Path, name: str, scenes: dict[Any, Any] | None) -> Run:
    """Score a run's rows, and read the scene facts in its reasoning. Raises RecordError."""
    rows, facts = [], []
    for record in iterate_records(file):
        row = score(record)
        if row.posterior is None:
            raise RecordError(f"{file}: row {row.id!r} has no posterior; give rows of VECBench-mini")
        rows.append(row)
        if scenes is None or name == HELD_OUT:
            facts.append(float("nan"))
            continue
        if not isinstance(scenes.get(row.id), dict):
            raise RecordError(f"no scene of row {row.id!r} of {file}; give --scenes of the same build")
        facts.append(mean(list(facts_right([(record, scenes[row.id])]).values())))
    if not rows:
        raise RecordError(f"{file}: no rows; give a file with predictions")
    return Run(rows, facts)


def with_posthoc(runs: dict[Key, Run]) -> tuple[dict[Key, Run], list[str]]:
    """Stages 1 and 2, post-hoc maps, stages 3 and the optimum, each over its seeds; tasks that fell back."""
    mapped: dict[Key, Run] = {}
    fell_back: set[str] = set()
    for (seed, name), held_out in runs.items():
        if name != HELD_OUT or (seed, STAGE2) not in runs:
            continue
        try:
            found, tasks = posthoc_runs(runs[seed, STAGE2], held_out)
        except ValueError as error:
            raise RecordError(f"{seed}/{HELD_OUT}: {error}") from None
        mapped |= {(seed, f"{STAGE2} + {one}"): run for one, run in found.items()}
        fell_back |= set(tasks)
    parts = [
        {key: run for key, run in runs.items() if key[1] in (STAGE1, STAGE2)},
        mapped,
        {key: run for key, run in runs.items() if key[1].startswith(STAGE3)},
    ]
    ordered = {
        key: run for part in parts for key, run in sorted(part.items(), key=lambda one: _place(part, one[0]))
    }
    return ordered | {("", OPTIMUM): optimum(next(iter(ordered.values())))}, sorted(fell_back)


def _place(part: dict[Key, Run], key: Key) -> int:
    """Where a run's name first occurs: the seeds of a run stand together."""
    return [name for _, name in part].index(key[1])


def posthoc_runs(run: Run, held_out: Run) -> tuple[dict[str, Run], tuple[str, ...]]:
    """The run with its confidences mapped by each post-hoc map that the held-out rows give.

    Rows without a confidence are not fitted on and stay as they are; an answer without a label is wrong.

    Returns:
        Runs by the name of the map, pooled and per task; the tasks that have the pooled map for want of rows.
    """
    stated = [row for row in held_out.rows if row.confidence is not None]
    confidence, right = [float(row.confidence or 0) for row in stated], [row.correct for row in stated]
    mapped, fell_back = {}, set()
    for name, fit in FITS.items():
        maps = fit_per_task(fit, confidence, right, [row.task for row in stated])
        # The tasks of the other group have no held-out rows of their own.
        fell_back |= {row.task for row in run.rows} - set(maps.of_task)
        mapped[name] = _mapped(run, lambda values, tasks, maps=maps: maps.pooled(values))
        mapped[f"{name}{PER_TASK}"] = _mapped(run, maps)
    return mapped, tuple(sorted(fell_back))


def _mapped(run: Run, maps: Any) -> Run:
    stated = [row for row in run.rows if row.confidence is not None]
    values = maps([float(row.confidence or 0) for row in stated], [row.task for row in stated])
    new = {row.id: Decimal(repr(float(value))) for row, value in zip(stated, values, strict=True)}
    return replace(run, rows=[replace(row, confidence=new.get(row.id)) for row in run.rows])


def optimum(run: Run) -> Run:
    """What no model can do better: the most probable label of each image, its probability to two decimals."""
    rows = []
    for row in run.rows:
        label = most_probable(row.posterior or {})
        confidence = Decimal(f"{(row.posterior or {})[label]:.2f}")
        rows.append(
            replace(row, label=label, correct=label == row.truth, confidence=confidence, status="answered")
        )
    return Run(rows, [np.nan] * len(rows))


def score_runs(runs: Mapping[Key, Run], n_draws: int, seed: int) -> tuple[Scores, int]:
    """Score every run in every group; all see the same draws of images.

    Args:
        runs: over the same rows, each with a `posterior`.
        n_draws: bootstrap draws over images.
        seed: of the draws.
    Returns:
        Scores by run and group, and the number of images. Names: `acc`, `ece`, `smooth_ece`, `brier`, `auroc`
        (mean of the tasks' own), `auroc_pooled`, and those of `_row_scores`.
    Raises:
        MismatchError: the runs do not hold the same rows.
    """
    alignment = Alignment()
    for key, run in runs.items():
        alignment.add_run("/".join(key), run.rows)
    arrays = alignment.aligned()
    tasks = {group: [name for name in alignment.tasks if alignment.groups[name] == group] for group in GROUPS}
    sets = {name: [place] for place, name in enumerate(alignment.tasks)}
    sets |= {
        group: [alignment.tasks.index(task) for task in names] for group, names in tasks.items() if names
    }
    resampling = resample(dict(zip(runs, arrays, strict=True)), sets, n_draws, seed, _measure)
    _, image = np.unique(arrays[0].image, return_inverse=True)
    n_images = int(image.max()) + 1
    drawn = next(draw_weights(np.ones(n_images, dtype=np.int64), max(n_draws, 1), seed, max(n_draws, 1)))
    weights = np.vstack([np.ones((1, n_images)), drawn[:n_draws]])
    scores = {
        key: {
            group: _together(resampling, key, group, names, row_scores)
            for group, names in tasks.items()
            if names
            for row_scores in [_row_scores(run, names, weights, image)]
        }
        for key, run in runs.items()
    }
    return scores, n_images


def _measure(counts: GroupCounts, smooth_enough: float) -> dict[str, FloatArray]:
    levels = counts.levels
    return {
        "acc": accuracy(levels),
        "ece": ece(levels),
        "brier": brier(levels),
        "auroc": auroc(levels),
    }


def _together(
    resampling: Resampling, key: Key, group: str, tasks: Sequence[str], row_scores: Mapping[str, FloatArray]
) -> Resampled:
    """One group's scores of one run; `row_scores`: the data's, then the draws'."""
    pooled = resampling.scored[key, group]
    within = mean_over([resampling.scored[key, task] for task in tasks])
    levels = resampling.exact.levels(key, group)
    only_points = {
        "smooth_ece": smooth_ece(levels) if len(levels.n) else np.array(np.nan),
        "commonest": ratio(levels.n.max(initial=0), levels.n_stated),
    }

    def joined(part: str) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = dict(getattr(pooled, part))
        return found | {"auroc_pooled": found["auroc"], "auroc": getattr(within, part)["auroc"]}

    point = joined("point") | only_points | {name: values[0] for name, values in row_scores.items()}
    no_draws = np.full(len(pooled.draws["acc"]), np.nan)
    draws = joined("draws") | {name: no_draws for name in only_points}
    draws |= {name: values[1:] for name, values in row_scores.items()}
    return Resampled(point, draws, point | joined("drawn_from"))


def _row_scores(
    run: Run, tasks: Sequence[str], weights: FloatArray, image: NDArray[np.int64]
) -> dict[str, FloatArray]:
    """Scores that are made of sums over rows, under each weighting of the images [draws, images].

    `distance`: mean |c - p|, c the stated confidence and p the true probability of the answer (0 without
    one), over the rows with a confidence; `rms_distance`: the root of the mean (c - p)^2; `expected_brier`:
    the mean p (1 - c)^2 + (1 - p) c^2, which is the Brier score without the chance of which label was drawn
    for an image, and (c - p)^2 more than an honest p would have; `std` of c; `correlation` of c and p, the
    mean over tasks of each task's own, 0 in a task in which c does not vary; `deliberate_errors`: share of
    all rows, see `BOTH_LOW`; `facts`: mean share of the scene's facts that the reasoning states right;
    `parse_rate`: share of rows with a label.
    """
    order = sorted(range(len(run.rows)), key=lambda place: run.rows[place].id)
    rows = [run.rows[place] for place in order]
    columns = _columns(rows, np.array(run.facts, dtype=np.float64)[order])
    of_task = np.array([row.task for row in rows], dtype=object)
    sums = []
    for task in tasks:
        inside = of_task == task
        sums.append(weights[:, image[inside]] @ columns[inside])
    total = np.sum(sums, axis=0)
    n, stated, c, c2, p, p2, cp, distance, deliberate, facts, parsed = total.T
    return {
        "distance": ratio(distance, stated),
        "rms_distance": np.sqrt(np.maximum(ratio(c2 - 2 * cp + p2, stated), 0)),
        "expected_brier": ratio(c2 - 2 * cp + p, stated),
        "std": np.sqrt(np.maximum(ratio(c2, stated) - ratio(c, stated) ** 2, 0)),
        "correlation": np.mean([_correlation(part) for part in sums], axis=0),
        "deliberate_errors": np.where(stated > 0, ratio(deliberate, n), np.nan),
        "facts": ratio(facts, n),
        "parse_rate": ratio(parsed, n),
    }


def _columns(rows: Sequence[ScoredRow], facts: FloatArray) -> FloatArray:
    """What is summed of each row, [n, 11]; c and what is made of it are 0 where no confidence is stated."""
    c = np.array([np.nan if row.confidence is None else float(row.confidence) for row in rows])
    p = np.array([_chance(row) for row in rows])
    is_stated = ~np.isnan(c)
    c = np.nan_to_num(c)
    is_best = np.array(
        [
            row.label is not None and p_ >= max((row.posterior or {}).values())
            for row, p_ in zip(rows, p, strict=True)
        ]
    )
    answered = np.array([row.label is not None for row in rows])
    deliberate = answered & ~is_best & (p < BOTH_LOW) & is_stated & (c <= BOTH_LOW)
    p_stated = p * is_stated
    return np.column_stack(
        [
            *(np.ones(len(rows)), is_stated, c, c**2, p_stated, p_stated**2, c * p_stated),
            *(np.abs(c - p) * is_stated, deliberate, facts, answered),
        ]
    ).astype(np.float64)


def _chance(row: ScoredRow) -> float:
    """The true probability of the row's answer, 0 without one."""
    return (row.posterior or {}).get(row.label or "", 0.0)


def _correlation(sums: FloatArray) -> FloatArray:
    """Pearson's r of c and p from a task's sums [draws, 11]; 0 where c or p does not vary, NaN without c."""
    stated, c, c2, p, p2, cp = sums.T[1:7]
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = cp / stated - c * p / stated**2
        spread = np.maximum(c2 / stated - (c / stated) ** 2, 0) * np.maximum(
            p2 / stated - (p / stated) ** 2, 0
        )
        found: FloatArray = np.where(spread > 1e-12, covariance / np.sqrt(spread), 0.0)
    found[stated == 0] = np.nan
    return found


def over_seeds(parts: Sequence[Resampled], seed: int) -> Resampled:
    """The mean over training seeds, its draws of images and of seeds; undefined where it is for one of them.

    A draw of images is one for all seeds. To it is added a draw of how far the mean of these seeds may lie
    from that of all: the sum of their scores with weights g / sqrt(S chi2), g normal less its mean, chi2 of
    S - 1 degrees of freedom, which is Student's t of S - 1 degrees of freedom times the standard error.
    (Drawing the seeds themselves, few as they are, makes intervals far too narrow.) The same `seed` gives the
    same weights, so that differences of two such means are paired in both.
    """
    n_seeds, n_draws = len(parts), len(parts[0].draws["acc"])
    generator = np.random.default_rng((seed, 2))
    weights = generator.standard_normal((n_draws, n_seeds))
    weights -= weights.mean(axis=1, keepdims=True)
    if n_seeds > 1:
        weights /= np.sqrt(n_seeds * generator.chisquare(n_seeds - 1, size=(n_draws, 1)))
    point, draws, drawn_from = {}, {}, {}
    for name in parts[0].point:
        points = np.array([float(part.point[name]) for part in parts])
        point[name] = points.mean()
        draws[name] = np.mean([part.draws[name] for part in parts], axis=0) + weights @ points
        drawn_from[name] = np.mean([part.drawn_from[name] for part in parts], axis=0)
    return Resampled(point, draws, drawn_from)
