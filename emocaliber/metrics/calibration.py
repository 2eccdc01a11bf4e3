"""How honest a stated confidence is: ECE and its relatives, Brier score and its parts, AUROC, the gap to a
known truth.

Every function of `LevelCounts` gives one score for each leading entry of the counts, NaN where it is
undefined. A confidence is read as the forecast that the row's answer is right; rows without one are left out.

Where the true distribution p over the L candidates of a row is known, a row that answers `a` with the
confidence c is also read as a forecast q of all of it: c on `a`, and (1 - c) / (L - 1) on each other label
(all of it on `a` where L = 1), for a single number says nothing of how the rest is shared out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emocaliber.metrics.counts import N_TENTHS, FloatArray, IntArray, LevelCounts, mean, number, ratio


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows of one confidence bin [low, high); the last bin includes high.

    `mean_confidence` and `accuracy` are in [0, 1], None where the bin is empty. `null_low` and `null_high`:
    where 95 % of the accuracies would lie if the confidences were honest (`calibrated_by_chance`), None if
    not drawn.
    """

    low: float
    high: float
    n: int
    n_correct: int
    mean_confidence: float | None
    accuracy: float | None
    null_low: float | None = None
    null_high: float | None = None


def reliability_bins(levels: LevelCounts, band: FloatArray | None = None) -> list[ReliabilityBin]:
    """The ten bins of a reliability diagram, empty ones included, of counts without leading axes.

    Args:
        levels: the counts.
        band: lower and upper end per bin, [2, 10], as `calibrated_by_chance` gives it.
    """
    n, n_correct = levels.binned(levels.n), levels.binned(levels.n_correct)
    means, accuracies = ratio(levels.binned(levels.n * levels.confidence), n), ratio(n_correct, n)
    low, high = np.full((2, N_TENTHS), np.nan) if band is None else band
    return [
        ReliabilityBin(
            low=index / N_TENTHS,
            high=(index + 1) / N_TENTHS,
            n=int(n[index]),
            n_correct=int(n_correct[index]),
            mean_confidence=number(means[index]),
            accuracy=number(accuracies[index]),
            null_low=number(low[index]),
            null_high=number(high[index]),
        )
        for index in range(N_TENTHS)
    ]


def ece(levels: LevelCounts) -> FloatArray:
    """Expected calibration error over ten equal-width bins, in [0, 1].

    sum over bins of (n_bin / n) |accuracy of the bin - mean confidence of the bin|
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).
    """
    gaps = np.abs(levels.binned(levels.n_correct) - levels.binned(levels.n * levels.confidence))
    return ratio(gaps.sum(axis=-1), levels.n_stated)


def ece_debiased(levels: LevelCounts) -> FloatArray:
    """The ECE less an estimate of its excess, by the normal approximation of each bin's accuracy.

    A bin's gap d = |accuracy - mean confidence| is seen with noise of variance s^2 = a (1 - a) / n, a its
    accuracy, so it is on average E|N(d, s^2)| instead of d; each bin counts 2 d - E|N(d, s^2)|
    (Kumar, Liang & Ma 2019, "Verified Uncertainty Calibration", appendix on the l1 error). The excess is
    worked out at the gap that is seen, so a part of it stays: about three fifths where the confidences are
    honest, next to nothing where gaps exceed the noise. It can fall a little below 0.
    """
    from scipy.special import ndtr

    n, n_correct = levels.binned(levels.n), levels.binned(levels.n_correct)
    accuracy = ratio(n_correct, n)
    gap = np.abs(accuracy - ratio(levels.binned(levels.n * levels.confidence), n))
    noise = np.sqrt(ratio(accuracy * (1 - accuracy), n))
    scaled = ratio(gap, noise)
    folded = noise * np.sqrt(2 / np.pi) * np.exp(-(scaled**2) / 2) + gap * (1 - 2 * ndtr(-scaled))
    expected = np.where(noise > 0, folded, gap)
    return ratio(np.nansum(n * (2 * gap - expected), axis=-1), levels.n_stated)


def ece_equal_mass(levels: LevelCounts) -> FloatArray:
    """ECE over ten bins that hold a tenth of the rows each, in [0, 1].

    Rows that tie are spread over the bins that their level spans in proportion, each share with the level's
    accuracy, so no order has to be chosen. The mean over all orders of the tied rows would be larger: a
    random order adds a gap of its own to every bin inside a tie.
    """
    ends = np.cumsum(levels.n, axis=-1)
    starts = ends - levels.n
    total = levels.n_stated
    gap = ratio(levels.n_correct, levels.n) - levels.confidence
    sums = np.zeros(total.shape)
    for index in range(N_TENTHS):
        low, high = total[..., None] * (index / N_TENTHS), total[..., None] * ((index + 1) / N_TENTHS)
        inside = np.clip(np.minimum(ends, high) - np.maximum(starts, low), 0, None)
        sums += np.abs(np.nansum(inside * gap, axis=-1))
    return ratio(sums, total)


_N_COEFFICIENTS = 512
# Narrower kernels than this are not resolved by that many coefficients; below it no width is searched.
_SMALLEST_WIDTH = 0.004
_CLOSE_ENOUGH = 1e-9
_MOST_STEPS = 60
_DRAWS_AT_ONCE = 512
_LEVELS_AT_ONCE = 4096


def smooth_ece(levels: LevelCounts, close_enough: float = _CLOSE_ENOUGH) -> FloatArray:
    """Smooth calibration error: an ECE without bins, whose one width the data choose; in [0, 1].

    Błasiok & Nakkiran 2023, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing" (arXiv
    2309.12236): residuals are smoothed by a Gaussian reflected at 0 and 1, smECE_sigma is the integral of the
    absolute smoothed residual, and smECE the one value with smECE_sigma = sigma (their definitions 2 and 3).

    On [0, 1] that kernel is diagonal in the cosine basis: smoothing multiplies the k-th coefficient by
    exp(-(pi k sigma)^2 / 2). So confidences are used where they are, and many draws are smoothed at once.

    `close_enough`: how far |smECE_sigma - sigma| may be from 0 when the search for the width ends.
    """
    n = levels.n.reshape(math.prod(levels.n.shape[:-1]), levels.n.shape[-1])
    n_correct = levels.n_correct.reshape(n.shape)
    total = n.sum(axis=-1, keepdims=True)
    residual = np.nan_to_num(ratio(n_correct - n * levels.confidence, total))
    result = np.empty(len(n))
    for start in range(0, len(n), _DRAWS_AT_ONCE):
        part = slice(start, start + _DRAWS_AT_ONCE)
        result[part] = _fixed_point(
            residual[part], _coefficients(residual[part], levels.confidence), close_enough
        )
    result[total[:, 0] == 0] = np.nan
    return result.reshape(levels.n.shape[:-1])


def _coefficients(residual: FloatArray, confidence: FloatArray) -> FloatArray:
    """The cosine coefficients [draws, K] of residuals [draws, L] that lie at the confidences [L]."""
    coefficients = np.zeros((len(residual), _N_COEFFICIENTS))
    for start in range(0, len(confidence), _LEVELS_AT_ONCE):
        part = slice(start, start + _LEVELS_AT_ONCE)
        waves = np.cos(np.pi * np.outer(confidence[part], np.arange(_N_COEFFICIENTS)))
        coefficients += residual[:, part] @ waves
    return coefficients


def _smoothed(coefficients: FloatArray, width: FloatArray) -> FloatArray:
    """smECE_sigma for each row of cosine coefficients [draws, K] and its sigma [draws]."""
    from scipy.fft import dct

    damped = np.exp(-0.5 * (np.pi * np.outer(width, np.arange(_N_COEFFICIENTS))) ** 2) * coefficients
    smoothed: FloatArray = np.abs(dct(damped, type=3, axis=-1)).mean(axis=-1)
    return smoothed


def _fixed_point(residual: FloatArray, coefficients: FloatArray, close_enough: float) -> FloatArray:
    """The sigma with smECE_sigma = sigma, by false position with halving (the Illinois method).

    smECE_sigma falls with sigma from sum |r| to |sum r|, so the two bracket it.
    """
    low = np.maximum(np.abs(residual.sum(axis=-1)), _SMALLEST_WIDTH)
    high = np.maximum(np.abs(residual).sum(axis=-1), low)
    at_low, at_high = _smoothed(coefficients, low) - low, _smoothed(coefficients, high) - high
    # Narrower than the smallest width: take the value there.
    narrow = at_low <= 0
    best = np.where(narrow, at_low + low, high)
    open_ = ~narrow & (at_high < 0)
    moved_low = np.zeros(len(low), dtype=np.int64)  # which end moved last: 1 low, -1 high
    for _ in range(_MOST_STEPS):
        if not open_.any():
            break
        i = np.flatnonzero(open_)
        middle = (low[i] * at_high[i] - high[i] * at_low[i]) / (at_high[i] - at_low[i])
        value = _smoothed(coefficients[i], middle) - middle
        best[i] = middle
        above = value > 0
        side = np.where(above, 1, -1)
        # An end that stays a second time counts half, so that both ends move.
        stayed = np.where(side == moved_low[i], 0.5, 1.0)
        moved_low[i] = side
        at_high[i] = np.where(above, at_high[i] * stayed, value)
        high[i] = np.where(above, high[i], middle)
        at_low[i] = np.where(above, value, at_low[i] * stayed)
        low[i] = np.where(above, middle, low[i])
        open_[i] = (np.abs(value) > close_enough) & (high[i] - low[i] > close_enough)
    return best


def brier(levels: LevelCounts) -> FloatArray:
    """Brier score of the confidence as a forecast that the answer is right: mean (c - i)^2, in [0, 1].

    Lower is better. Brier 1950, "Verification of forecasts expressed in terms of probability", in its
    two-class form (half of the original sum over both classes).
    """
    c = levels.confidence
    squares = levels.n_correct * (1 - c) ** 2 + (levels.n - levels.n_correct) * c**2
    return ratio(squares.sum(axis=-1), levels.n_stated)


def brier_parts(levels: LevelCounts) -> dict[str, FloatArray]:
    """Miscalibration, discrimination and uncertainty: Brier = MCB - DSC + UNC, none of them below 0.

    The CORP decomposition (Dimitriadis, Gneiting & Jordan 2021, "Stable reliability diagrams for
    probabilistic classifiers", eq. 4): confidences are recalibrated by isotonic regression of the answers on
    them; MCB is what that gains, DSC how much better the recalibrated forecast is than the base rate.
    """
    total, n_right = levels.n_stated, levels.n_correct.sum(axis=-1)
    rate = ratio(n_right, total)
    uncertainty = rate * (1 - rate)
    best = ratio(_isotonic_squares(levels.n, levels.n_correct), total)
    return {
        "miscalibration": np.maximum(brier(levels) - best, 0.0),
        "discrimination": np.maximum(uncertainty - best, 0.0),
        "uncertainty": uncertainty,
    }


def _isotonic_squares(n: FloatArray, n_correct: FloatArray) -> FloatArray:
    """Sum of squares [...] that is left when isotonic regression has recalibrated the confidences.

    Pools adjacent violators (Barlow et al. 1972, "Statistical Inference under Order Restrictions") level by
    level, in all leading entries at once; a block of w rows with s right leaves s - s^2 / w. Blocks are
    compared in whole numbers.
    """
    n_levels = n.shape[-1]
    rows, right = (counts.reshape(math.prod(n.shape[:-1]), n_levels) for counts in (n, n_correct))
    weight, total = np.zeros_like(rows), np.zeros_like(right)
    n_blocks = np.zeros(len(rows), dtype=np.int64)
    for level in range(n_levels):
        open_ = np.flatnonzero(rows[:, level])
        last = n_blocks[open_]
        weight[open_, last], total[open_, last] = rows[open_, level], right[open_, level]
        n_blocks[open_] += 1
        while len(open_):
            last = n_blocks[open_] - 1
            before = np.maximum(last - 1, 0)
            falls = total[open_, last] * weight[open_, before] < total[open_, before] * weight[open_, last]
            open_, last = open_[falls], last[falls]
            for block in (weight, total):
                block[open_, last - 1] += block[open_, last]
                block[open_, last] = 0
            n_blocks[open_] -= 1
    squares: FloatArray = (total - np.nan_to_num(ratio(total**2, weight))).sum(axis=-1)
    return squares.reshape(n.shape[:-1])


def auroc(levels: LevelCounts) -> FloatArray:
    """Chance that a right answer states a higher confidence than a wrong one, a tie counting half; in [0, 1].

    The area under the ROC curve as the Mann-Whitney statistic (Hanley & McNeil 1982), exact under ties.
    Undefined where all answers are right, or none is.
    """
    n_wrong = levels.n - levels.n_correct
    wrong_below = np.cumsum(n_wrong, axis=-1) - n_wrong
    twice_wins = (levels.n_correct * (2 * wrong_below + n_wrong)).sum(axis=-1)
    return ratio(twice_wins, 2 * levels.n_correct.sum(axis=-1) * n_wrong.sum(axis=-1))


def average_precision(levels: LevelCounts) -> FloatArray:
    """Mean precision over the right answers as the confidence falls, ties taken together; in (0, 1].

    sum over the levels, highest first, of (recall gained) x (precision so far), as scikit-learn's
    `average_precision_score`. Undefined where no answer is right.
    """
    n, n_correct = levels.n[..., ::-1], levels.n_correct[..., ::-1]
    precision = ratio(np.cumsum(n_correct, axis=-1), np.cumsum(n, axis=-1))
    gained = np.where(n_correct > 0, n_correct * precision, 0.0)
    return ratio(gained.sum(axis=-1), n_correct.sum(axis=-1))


@dataclass(frozen=True)
class ByChance:
    """What honest confidences would show by chance: the ECE's mean and 95th percentile, and a band per bin.

    `band` [2, 10]: 2.5th and 97.5th percentile of each bin's accuracy, NaN for an empty bin.
    """

    mean: float
    p95: float
    band: FloatArray


def calibrated_by_chance(levels: LevelCounts, n_draws: int, seed: int) -> ByChance | None:
    """ECE of a perfectly calibrated model with these confidences, which is above 0 in any finite sample.

    Every row is right with the chance that it states, drawn anew `n_draws` times (the consistency resampling
    of Bröcker & Smith 2007, "Increasing the reliability of reliability diagrams"), rows independent of each
    other.

    Args:
        levels: counts without leading axes.
        n_draws: at least 1.
        seed: the same counts and seed give the same numbers.
    Returns:
        None where no row states a confidence.
    """
    if not levels.n_stated:
        return None
    rng = np.random.default_rng((seed, 1))
    sizes = levels.n.astype(np.int64)
    sums = np.empty((n_draws, N_TENTHS))
    step = max(1, 4_000_000 // len(sizes))
    for start in range(0, n_draws, step):
        shape = (min(step, n_draws - start), len(sizes))
        sums[start : start + step] = levels.binned(
            rng.binomial(sizes, levels.confidence, shape).astype(np.float64)
        )
    n = levels.binned(levels.n)
    gaps = np.abs(sums - levels.binned(levels.n * levels.confidence))
    eces = gaps.sum(axis=-1) / levels.n_stated
    band = ratio(np.percentile(sums, [2.5, 97.5], axis=0), n)
    return ByChance(float(eces.mean()), float(np.percentile(eces, 95)), band)


def bayes_accuracy(largest_probability: Sequence[float]) -> float | None:
    """Expected accuracy of always naming the most probable label, in [0, 1]; None without rows.

    The mean of the largest p(label | image) of the rows. The accuracy of a finite sample can lie a little
    above or below.
    """
    return mean(largest_probability)


LEAST_PROBABILITY = 1e-3
"""A confidence is cut to [this, 1 - this] where its logarithm is taken: a stated 1.0 costs at most 6.9 nats.

The limits of Rewarding Doubt (arXiv 2503.02623, eq. 3); what is stated with two decimals is not told apart by
less.
"""


def forecast_scores(
    confidence: FloatArray, chance: FloatArray, n_labels: IntArray, entropy: FloatArray, squares: FloatArray
) -> dict[str, FloatArray]:
    """Score the forecast q of each row against its true distribution p.

    Args:
        confidence: c, [n].
        chance: p of the answer, [n].
        n_labels: L, [n].
        entropy: of p in nats, - sum p ln p, [n].
        squares: sum of p^2 over the labels, [n].
    Returns:
        `cross_entropy`, - sum p ln q, in nats, c cut to [LEAST_PROBABILITY, 1 - LEAST_PROBABILITY]; `kl`,
        what it exceeds the entropy by, the divergence of p from q (0 for q = p); `brier`, sum (q - p)^2 over
        the labels, in [0, 2]: Brier's score of 1950 with p in place of the outcome. Each [n].
    """
    others = np.maximum(n_labels - 1, 1)
    is_alone = n_labels == 1
    cut = np.clip(confidence, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    logs = chance * np.log(cut) + (1 - chance) * np.log((1 - cut) / others)
    cross_entropy = np.where(is_alone, 0.0, -logs)
    stated = np.where(is_alone, 1.0, confidence)
    rest = (1 - stated) / others
    of_forecast = stated**2 + others * rest**2
    brier = of_forecast - 2 * (stated * chance + rest * (1 - chance)) + squares
    # Neither can be below 0; the differences can be, by the last digit.
    return {
        "cross_entropy": cross_entropy,
        "kl": np.maximum(cross_entropy - entropy, 0.0),
        "brier": np.maximum(brier, 0.0),
    }


def soft_ece(confidence: FloatArray, tenth: IntArray, chance: FloatArray) -> float | None:
    """ECE over ten bins with the true chance of each answer in place of whether it happened to be right.

    sum over bins of (n_bin / n) |mean chance of the bin - mean confidence of the bin|, in [0, 1]. It lacks
    the noise of the outcomes, which inflates the ECE of small samples. Sums are exact, so the order of the
    rows cannot matter.

    Args:
        confidence: [n].
        tenth: the bin of each confidence, on the stated decimal (`counts.tenth_of`), [n].
        chance: p of the answer, [n].
    Returns:
        None without rows.
    """
    if not len(confidence):
        return None
    gap = chance - confidence
    sums = (math.fsum(gap[tenth == index].tolist()) for index in range(N_TENTHS))
    return math.fsum(map(abs, sums)) / len(confidence)
