"""How honest a stated confidence is: ECE, Brier score, AUROC, reliability bins, the gap to a known truth.

Stated confidences tie massively and sit exactly on bin edges. So rows are first counted per distinct
confidence (`confidence_levels`), as exact fractions of the stated decimal; every metric is a sum over those
levels and is rounded once, at the end. Ties are exact and the order of the rows cannot matter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction


@dataclass(frozen=True)
class Level:
    """All rows that state one and the same confidence."""

    confidence: Fraction
    n: int
    n_correct: int


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows of one confidence bin [low, high); the last bin includes high.

    `mean_confidence` and `accuracy` are in [0, 1], None where the bin is empty.
    """

    low: Fraction
    high: Fraction
    n: int
    n_correct: int
    mean_confidence: float | None
    accuracy: float | None


def _exact(confidence: Decimal | float) -> Fraction:
    # A float stands for the decimal that was written, the shortest that reads back as it: 0.3 is 3/10.
    return Fraction(repr(float(confidence)) if isinstance(confidence, float) else confidence)


def confidence_levels(confidence: Iterable[Decimal | float], correct: Iterable[bool]) -> list[Level]:
    """Counts rows per distinct confidence, lowest first.

    Args:
        confidence: n stated confidences in [0, 1].
        correct: n flags, whether the row's answer is right.
    Raises:
        ValueError: different lengths, or a confidence that is not a number in [0, 1].
    """
    counts: defaultdict[Decimal | float, list[int]] = defaultdict(lambda: [0, 0])
    for stated, right in zip(confidence, correct, strict=True):
        count = counts[stated]
        count[0] += 1
        count[1] += bool(right)
    merged: defaultdict[Fraction, list[int]] = defaultdict(lambda: [0, 0])
    for stated, (n, n_correct) in counts.items():
        if not (math.isfinite(stated) and 0 <= stated <= 1):
            raise ValueError(f"confidence {stated} is not a number in [0, 1]")
        count = merged[_exact(stated)]
        count[0] += n
        count[1] += n_correct
    return [Level(level, *merged[level]) for level in sorted(merged)]


def _bin_totals(levels: Sequence[Level], n_bins: int) -> list[tuple[int, int, Fraction]]:
    """(rows, right answers, sum of confidences) per bin.

    Exact, so 0.3 opens the fourth bin of ten and 1.0 is in the last.
    """
    totals = [(0, 0, Fraction(0))] * n_bins
    for level in levels:
        index = min(math.floor(level.confidence * n_bins), n_bins - 1)
        n, n_correct, stated = totals[index]
        totals[index] = (n + level.n, n_correct + level.n_correct, stated + level.confidence * level.n)
    return totals


def reliability_bins(
    confidence: Iterable[Decimal | float], correct: Iterable[bool], n_bins: int = 10
) -> list[ReliabilityBin]:
    """The bins of a reliability diagram: [0, 1/n_bins) ... [1 - 1/n_bins, 1], empty ones included.

    Args and errors as in `confidence_levels`.
    """
    totals = _bin_totals(confidence_levels(confidence, correct), n_bins)
    return [
        ReliabilityBin(
            low=Fraction(index, n_bins),
            high=Fraction(index + 1, n_bins),
            n=n,
            n_correct=n_correct,
            mean_confidence=float(stated / n) if n else None,
            accuracy=n_correct / n if n else None,
        )
        for index, (n, n_correct, stated) in enumerate(totals)
    ]


def ece(confidence: Iterable[Decimal | float], correct: Iterable[bool], n_bins: int = 10) -> float | None:
    """Expected calibration error over equal-width bins, in [0, 1].

    sum over bins of (n_bin / n) |accuracy of the bin - mean confidence of the bin|
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3), bins as in `reliability_bins`.

    Args and errors as in `confidence_levels`. Returns None where there are no rows.
    """
    totals = _bin_totals(confidence_levels(confidence, correct), n_bins)
    n_rows = sum(n for n, _, _ in totals)
    if not n_rows:
        return None
    return float(sum((abs(n_correct - stated) for _, n_correct, stated in totals), Fraction(0)) / n_rows)


def brier(confidence: Iterable[Decimal | float], correct: Iterable[bool]) -> float | None:
    """Brier score of the confidence as a forecast that the answer is right: mean (c - i)^2, in [0, 1].

    Lower is better. Brier 1950, "Verification of forecasts expressed in terms of probability", in its
    two-class form (half of the original sum over both classes).

    Args and errors as in `confidence_levels`. Returns None where there are no rows.
    """
    levels = confidence_levels(confidence, correct)
    n_rows = sum(level.n for level in levels)
    if not n_rows:
        return None
    total = sum(
        (
            level.n_correct * (1 - level.confidence) ** 2 + (level.n - level.n_correct) * level.confidence**2
            for level in levels
        ),
        Fraction(0),
    )
    return float(total / n_rows)


def auroc(confidence: Iterable[Decimal | float], correct: Iterable[bool]) -> float | None:
    """Chance that a right answer states a higher confidence than a wrong one, a tie counting half; in [0, 1].

    The area under the ROC curve as the Mann-Whitney statistic (Hanley & McNeil 1982), exact under ties.

    Args and errors as in `confidence_levels`. Returns None where all answers are right, or none is.
    """
    n_wrong_below = n_right = 0
    twice_wins = 0
    for level in confidence_levels(confidence, correct):
        n_wrong = level.n - level.n_correct
        twice_wins += level.n_correct * (2 * n_wrong_below + n_wrong)
        n_wrong_below += n_wrong
        n_right += level.n_correct
    pairs = n_right * n_wrong_below
    return twice_wins / (2 * pairs) if pairs else None


def mean(values: Sequence[float]) -> float | None:
    """Mean of floats, summed exactly so that their order does not matter; None where there are none."""
    return math.fsum(values) / len(values) if values else None


def truth_gap(confidence: Iterable[Decimal | float], probability: Iterable[float]) -> float | None:
    """Mean |c - p|, in [0, 1]: how far the stated confidence is from the true chance to be right.

    Args:
        confidence: n stated confidences.
        probability: n true probabilities of the answers that were given, p(answer | image).
    Returns:
        The mean absolute difference, None where there are no rows.
    Raises:
        ValueError: different lengths.
    """
    return mean([abs(float(c) - p) for c, p in zip(confidence, probability, strict=True)])


def bayes_accuracy(largest_probability: Sequence[float]) -> float | None:
    """Expected accuracy of always naming the most probable label, in [0, 1]; None without rows.

    The mean of the largest p(label | image) of the rows. The accuracy of a finite sample can lie a little
    above or below.
    """
    return mean(largest_probability)
