"""How sure a number is: bootstrap over images, percentile and basic intervals, p-values, Holm's correction.

Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emocaliber.metrics.counts import FloatArray, IntArray, number
from emocaliber.metrics.rows import GroupCounts, Grouped, JointCells, Rows, group_runs, joint_cells, whole
from emocaliber.metrics.scores import BIASED_UPWARD, ESTIMATED_BY_A_DRAW, RANGE, scores, threshold_scores

N_DRAWS = 2000
LEVEL = 0.95
_Z = 1.959963984540054  # the normal quantile of that level
Interval = tuple[float, float]
Measure = Callable[[GroupCounts, float], dict[str, FloatArray]]

_NUMBERS_AT_ONCE = 8_000_000

# How exactly the width of the smooth ECE is found: four decimals are far inside what a draw says.
_SMOOTH_ON_DATA, _SMOOTH_ENOUGH = 1e-9, 1e-4

# An interval from few draws says little: a score has to be defined in at least this share of them.
_LEAST_DEFINED = 0.9


@dataclass(frozen=True)
class Resampled:
    """Scores of one group: `point` on the data, `draws` [n_draws] under each draw, NaN if undefined.

    `drawn_from`: the scores of the data as the draws see it, with coarser confidences where they are many.
    """

    point: dict[str, FloatArray]
    draws: dict[str, FloatArray]
    drawn_from: dict[str, FloatArray]

    def value(self, score: str) -> float | None:
        """The score on the data, None where it is undefined."""
        return number(self.point[score])

    def interval(self, score: str) -> Interval | None:
        """The 95 % interval of a score, see `interval`."""
        point, draws = self.value(score), self.draws[score]
        if score not in ESTIMATED_BY_A_DRAW:
            return interval(point, draws)
        estimated = number(self.drawn_from[ESTIMATED_BY_A_DRAW[score]])
        return interval(point, draws, estimated=estimated, within=RANGE.get(score, (0.0, 1.0)))


def draw_weights(weight: IntArray, n_draws: int, seed: int, at_once: int) -> Iterator[FloatArray]:
    """Weightings of the patterns [at most at_once, P]: as many images drawn with replacement."""
    rng = np.random.default_rng((seed, 0))
    n_images = int(weight.sum())
    for start in range(0, n_draws, at_once):
        size = min(at_once, n_draws - start)
        yield rng.multinomial(n_images, weight / n_images, size=size).astype(np.float64)


@dataclass(frozen=True)
class Resampling:
    """Every group's scores and draws by (run, set of tasks), with the groups of the data and of the draws."""

    scored: dict[tuple[Any, Any], Resampled]
    exact: Grouped
    drawn: Grouped


def _all_scores(counts: GroupCounts, smooth_enough: float) -> dict[str, FloatArray]:
    return scores(counts, smooth_enough) | threshold_scores(counts)


def resample(
    runs: Mapping[Any, Rows],
    sets: Mapping[Any, Sequence[int]],
    n_draws: int = N_DRAWS,
    seed: int = 0,
    measure: Measure = _all_scores,
    joint: JointCells = joint_cells,
) -> Resampling:
    """Score every set of tasks of every run, on the data and under each draw; all see the same draws.

    Args:
        runs, sets, joint: as for `group_runs`.
        n_draws: 0 gives no draws and so no intervals.
        seed: the same rows and seed give the same draws.
        measure: what to score, given counts and how exactly the smooth ECE is found.
    """
    exact = group_runs(runs, sets, joint)
    coarse = {name: rows.coarsened() for name, rows in runs.items()}
    is_coarse = any(coarse[name] is not runs[name] for name in runs)
    drawn = group_runs(coarse, sets, joint) if is_coarse else exact
    point = _scored_as_they_are(exact, measure)
    drawn_from = _scored_as_they_are(drawn, measure) if is_coarse else point
    widest = max([len(drawn.found.weight), *(group.n_counts for group in drawn.groups.values())])
    at_once = max(1, min(n_draws or 1, _NUMBERS_AT_ONCE // widest))
    parts: dict[tuple[Any, Any], list[dict[str, FloatArray]]] = {name: [] for name in drawn.groups}
    for weights in draw_weights(drawn.found.weight, n_draws, seed, at_once):
        for name, group in drawn.groups.items():
            parts[name].append(measure(group.counts(weights), _SMOOTH_ENOUGH))
    scored = {
        name: Resampled(scores, _joined(scores, parts[name]), drawn_from[name])
        for name, scores in point.items()
    }
    return Resampling(scored, exact, drawn)


def _joined(names: Iterable[str], parts: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
    return {name: np.concatenate([part[name] for part in parts] or [np.empty(0)]) for name in names}


def _scored_as_they_are(grouped: Grouped, measure: Measure) -> dict[tuple[Any, Any], dict[str, FloatArray]]:
    weight = whole(grouped.found.weight)
    return {
        name: {score: values[0] for score, values in measure(group.counts(weight), _SMOOTH_ON_DATA).items()}
        for name, group in grouped.groups.items()
    }


def mean_over(parts: Sequence[Resampled]) -> Resampled:
    """The plain mean of each score over the tasks in which it is defined.

    Undefined in a draw in which it is undefined for one of them: a mean over fewer tasks is another score.
    """
    defined = {
        score: [part for part in parts if not np.isnan(part.point[score])] or parts[:1]
        for score in parts[0].point
    }

    def means(scores_of: Callable[[Resampled], dict[str, FloatArray]]) -> dict[str, FloatArray]:
        return {
            score: np.mean([scores_of(part)[score] for part in some], axis=0)
            for score, some in defined.items()
        }

    return Resampled(
        means(lambda part: part.point), means(lambda part: part.draws), means(lambda part: part.drawn_from)
    )


def difference(first: Resampled, other: Resampled, score: str) -> tuple[float | None, FloatArray]:
    """A score of the other less that of the first, None where one is undefined, and its draws.

    Draws of a distance such as the ECE are reflected at the difference: sampling noise lengthens the shorter
    of two distances more, in the data and once more in a draw, so that their percentiles lie too near to 0.
    """
    before, after = first.value(score), other.value(score)
    draws = other.draws[score] - first.draws[score]
    if before is None or after is None:
        return None, draws
    if score in BIASED_UPWARD:
        drawn_from = [float(one.drawn_from[score]) for one in (first, other)]
        draws = (after - before) + (drawn_from[1] - drawn_from[0]) - draws
    return after - before, draws


def interval(
    point: float | None,
    draws: FloatArray,
    *,
    estimated: float | None = None,
    within: Interval = (0.0, 1.0),
) -> Interval | None:
    """The 95 % interval of a score from its bootstrap draws.

    Args:
        point: the score on the data.
        draws: the score under each draw, NaN where it is undefined there.
        estimated: None gives the percentiles. Else the value that the draws estimate, the data being the
            truth of that world; it gives the basic interval, `point` less the errors of the draws: for
            distances such as the ECE, which are biased upward and in a draw even more, so that their
            percentiles can lie above the score itself. This one can lie below it.
        within: what the basic interval is cut to.
    Returns:
        None where the score is undefined on the data, or in more than a tenth of the draws, or nothing was
        drawn.
    """
    defined = draws[~np.isnan(draws)]
    if point is None or not len(draws) or len(defined) < _LEAST_DEFINED * len(draws):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = (float(end) for end in np.percentile(defined, [tail, 100 - tail]))
    if estimated is None:
        return low, high
    least, most = within
    return min(max(point + estimated - high, least), most), min(max(point + estimated - low, least), most)


def mean_interval(values: FloatArray, weights: FloatArray, image: IntArray) -> Interval | None:
    """The 95 % interval of sum(values) / sum(weights), a mean where the weights are 1, by the normal
    approximation.

    Its standard error is that of the linearised ratio with rows that share an image summed first
    (Cochran 1977, "Sampling Techniques", section 2.11). Sums are exact, so the order of the rows cannot
    matter.

    Args:
        values, weights: [n].
        image: the number of each row's image, 0 or above, [n].
    Returns:
        None for fewer than two images.
    """
    total = math.fsum(weights.tolist())
    rows_of_image = np.bincount(image) if len(image) else image
    n_images = int(np.count_nonzero(rows_of_image))
    if n_images < 2 or not total:
        return None
    point = math.fsum(values.tolist()) / total
    sums = _sums_by_image((values - point * weights) / total, image)[rows_of_image > 0]
    error = math.sqrt(math.fsum((sums**2).tolist()) * n_images / (n_images - 1))
    return point - _Z * error, point + _Z * error


def _sums_by_image(values: FloatArray, image: IntArray) -> FloatArray:
    """Sum the values of each image, to 53 bits less those of the number of rows.

    Rounded to whole multiples of a power of two so small that no sum of them is rounded: then the order of
    the rows cannot matter, and no sorting is needed.
    """
    _, exponent = math.frexp(float(np.abs(values).max()))
    shift = 52 - exponent - len(values).bit_length()
    sums = np.bincount(image, weights=np.rint(np.ldexp(values, shift)))
    result: FloatArray = np.ldexp(sums, -shift)
    return result


def p_value(differences: FloatArray) -> float | None:
    """Two-sided p-value of a difference from its bootstrap draws: twice the smaller tail at 0.

    (1 + draws on the other side) / (1 + draws), a draw at 0 on both sides; at most 1. None where the
    difference is undefined in more than a tenth of the draws.
    """
    defined = differences[~np.isnan(differences)]
    if not len(differences) or len(defined) < _LEAST_DEFINED * len(differences):
        return None
    tails = (int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + min(tails)) / (1 + len(defined)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p-values that hold the family-wise error, in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
