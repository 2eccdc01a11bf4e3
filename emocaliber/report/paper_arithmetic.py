"""The published evaluator's numbers, out of counted outcomes; what it does is told in `paper`.

Sums are exact or by `math.fsum` over counts, so that the order of the rows cannot change a digit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

N_BINS = 10
# np.linspace(0, 1, 11) to the bit: 3 * 0.1, 6 * 0.1 and 7 * 0.1 lie one float above 0.3, 0.6 and 0.7.
_BIN_EDGES = tuple(index * 0.1 for index in range(N_BINS + 1))


class Outcome(NamedTuple):
    """What a row comes to. `scanned` is the label that Overall uses; `confidence` is in [0, 1]."""

    truth: str
    label: str
    scanned: str
    confidence: float | None


Counted = Iterable[tuple[Outcome, int]]
"""Outcomes with the number of their rows."""
Pairs = Counter[tuple[str, str]]
"""Rows per (truth, label)."""


class Level(NamedTuple):
    """All rows with one confidence."""

    confidence: float
    n: int
    n_right: int


class Kept(NamedTuple):
    """The rows with c >= threshold; scores and coverage in [0, 1], None where there are no such rows."""

    threshold: float
    n: int
    acc: float | None
    f1: float | None
    coverage: float | None


def count_pairs(counted: Counted, *, reads_scan: bool = False) -> Pairs:
    """Count rows per (truth, label), the label being the one that Overall uses if `reads_scan`."""
    pairs: Pairs = Counter()
    for outcome, n in counted:
        pairs[outcome.truth, outcome.scanned if reads_scan else outcome.label] += n
    return pairs


def accuracy(pairs: Pairs) -> float | None:
    """Share of rows whose label is the truth, in [0, 1]; None without rows."""
    n = pairs.total()
    return sum(count for (truth, label), count in pairs.items() if truth == label) / n if n else None


def weighted_f1(pairs: Pairs) -> float | None:
    """scikit-learn's `f1_score(average="weighted")`, in [0, 1], as an exact fraction; None without rows.

    `unknown` is a label like any other.
    """
    support: Counter[str] = Counter()
    n_predicted: Counter[str] = Counter()
    for (truth, label), n in pairs.items():
        support[truth] += n
        n_predicted[label] += n
    weighted = (n * Fraction(2 * pairs[name, name], n + n_predicted[name]) for name, n in support.items())
    return float(sum(weighted, Fraction(0)) / support.total()) if support else None


def confidence_levels(counted: Counted) -> list[Level]:
    """Rows per confidence, lowest first; a row without a confidence is in none."""
    n_rows: Counter[float] = Counter()
    n_right: Counter[float] = Counter()
    for outcome, n in counted:
        if outcome.confidence is not None:
            n_rows[outcome.confidence] += n
            n_right[outcome.confidence] += n if outcome.label == outcome.truth else 0
    return [Level(confidence, n_rows[confidence], n_right[confidence]) for confidence in sorted(n_rows)]


def float_bin(confidence: float) -> int:
    """The bin of the published ECE, from 0; `N_BINS`, which is no bin, for 1.0."""
    return bisect_right(_BIN_EDGES, confidence) - 1


def decimal_bin(confidence: float) -> int:
    """The bin of the default ECE, from 0: that of the shortest decimal which reads as the float."""
    return min(math.floor(Fraction(repr(confidence)) * N_BINS), N_BINS - 1)


def ece(levels: Sequence[Level]) -> float | None:
    """sum over bins of (n_bin / n) |accuracy - mean confidence|; n counts 1.0, which is in no bin."""
    n = sum(level.n for level in levels)
    inside: dict[int, list[Level]] = {index: [] for index in range(N_BINS + 1)}
    for level in levels:
        inside[float_bin(level.confidence)].append(level)
    del inside[N_BINS]
    gaps = (
        abs(sum(one.n_right for one in some) - math.fsum(one.confidence * one.n for one in some))
        for some in inside.values()
    )
    return math.fsum(gaps) / n if n else None


def brier(levels: Sequence[Level]) -> float | None:
    """Mean (c - i)^2, i being 1 for a right answer and 0 for a wrong one; None without rows."""
    n = sum(level.n for level in levels)
    right = (level.n_right * (1 - level.confidence) ** 2 for level in levels)
    wrong = ((level.n - level.n_right) * level.confidence**2 for level in levels)
    return math.fsum(chain(right, wrong)) / n if n else None


def auroc(levels: Sequence[Level]) -> float | None:
    """Area under the ROC curve, ties counting half; None where all answers are right, or none is."""
    n_right = n_wrong = twice_wins = 0
    for level in levels:
        wrong_here = level.n - level.n_right
        twice_wins += level.n_right * (2 * n_wrong + wrong_here)
        n_right += level.n_right
        n_wrong += wrong_here
    return twice_wins / (2 * n_right * n_wrong) if n_right and n_wrong else None


def threshold_rows(counted: Counted) -> list[Kept]:
    """Acc, F1 and coverage of the rows with c >= 0.1 ... 0.9; coverage is among rows with a confidence."""
    stated = [(item[0].confidence, item) for item in counted if item[0].confidence is not None]
    n_stated = sum(n for _, (_, n) in stated)
    table = []
    for tenth in range(1, 10):
        kept = count_pairs(item for confidence, item in stated if confidence >= tenth / 10)
        coverage = kept.total() / n_stated if n_stated else None
        table.append(Kept(tenth / 10, kept.total(), accuracy(kept), weighted_f1(kept), coverage))
    return table
