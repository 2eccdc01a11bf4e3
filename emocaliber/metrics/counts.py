"""Rows counted by what they state: the arrays that every metric is a function of.

Stated confidences tie massively and sit exactly on bin edges. So rows are counted per distinct confidence, in
whole numbers, with the bin of each confidence worked out on the decimal that was written. Every metric is
then a function of those counts: ties are exact, and the order of the rows cannot matter. All counts may carry
leading axes, one entry a bootstrap draw; a metric gives one number for each.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_TENTHS = 10
"""Bins of the ECE, of the reliability diagram and of the threshold table: [0, 0.1) ... [0.9, 1.0]."""

_EXACT = Context(prec=200)


@dataclass(frozen=True)
class LevelCounts:
    """How many rows state each confidence, and how many of these are right.

    `confidence` [L]: the distinct confidences in [0, 1], ascending. `tenth` [L]: the bin of ten in which each
    lies, on the stated decimal. `n`, `n_correct` [..., L]: rows and right rows. `n_missing`,
    `n_correct_missing` [...]: the rows that state no confidence.
    """

    confidence: FloatArray
    tenth: IntArray
    n: FloatArray
    n_correct: FloatArray
    n_missing: FloatArray
    n_correct_missing: FloatArray

    @property
    def n_stated(self) -> FloatArray:
        """Rows that state a confidence, [...]."""
        total: FloatArray = self.n.sum(axis=-1)
        return total

    def first(self) -> "LevelCounts":
        """The first entry of counts with one leading axis."""
        return replace(
            self,
            n=self.n[0],
            n_correct=self.n_correct[0],
            n_missing=self.n_missing[0],
            n_correct_missing=self.n_correct_missing[0],
        )

    def binned(self, counts: FloatArray) -> FloatArray:
        """Sum a count [..., L] over the ten bins, [..., 10]."""
        in_bin = (self.tenth[:, None] == np.arange(N_TENTHS)).astype(np.float64)
        summed: FloatArray = counts @ in_bin
        return summed


def exact_decimal(confidence: Decimal | float) -> Decimal:
    """The decimal that was written: a float stands for the shortest that reads back as it.

    Raises ValueError for what is not a number in [0, 1].
    """
    stated = confidence if isinstance(confidence, Decimal) else Decimal(repr(float(confidence)))
    if not (stated.is_finite() and 0 <= stated <= 1):
        raise ValueError(f"confidence {confidence} is not a number in [0, 1]")
    return stated


def tenth_of(confidence: Decimal) -> int:
    """The bin of ten of a decimal in [0, 1]: 0.3 opens the fourth, 1.0 is in the last."""
    return min(int(_EXACT.multiply(confidence, N_TENTHS)), N_TENTHS - 1)


def level_counts(confidence: Iterable[Decimal | float | None], correct: Iterable[bool]) -> LevelCounts:
    """Count rows per distinct confidence.

    Args:
        confidence: n stated confidences in [0, 1], None where a row states none.
        correct: n flags, whether the row's answer is right.
    Raises:
        ValueError: different lengths, or a confidence that is not a number in [0, 1].
    """
    counts: dict[Decimal, list[int]] = {}
    missing = [0, 0]
    for stated, right in zip(confidence, correct, strict=True):
        count = missing if stated is None else counts.setdefault(exact_decimal(stated), [0, 0])
        count[0] += 1
        count[1] += bool(right)
    levels = sorted(counts)
    return LevelCounts(
        confidence=np.array([float(level) for level in levels]),
        tenth=np.array([tenth_of(level) for level in levels], dtype=np.int64),
        n=np.array([counts[level][0] for level in levels], dtype=np.float64),
        n_correct=np.array([counts[level][1] for level in levels], dtype=np.float64),
        n_missing=np.array(missing[0], dtype=np.float64),
        n_correct_missing=np.array(missing[1], dtype=np.float64),
    )


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; NaN, which stands for an undefined score, where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def number(value: FloatArray | float) -> float | None:
    """A single score as a float, None where it is undefined."""
    single = float(value)
    return None if math.isnan(single) else single


def mean(values: Sequence[float]) -> float | None:
    """Mean of floats, summed exactly so that their order does not matter; None where there are none."""
    return math.fsum(values) / len(values) if values else None
