"""Selective prediction: what is left, and how right it is, when only confident answers are kept.

An answer is kept at a threshold t where its confidence is at least t; a row without a confidence is never
kept and still counts in the coverage. Rows that tie are kept or left together, so their order cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from emocaliber.metrics.accuracy import accuracy, weighted_f1
from emocaliber.metrics.calibration import confidence_levels

THRESHOLDS = tuple(Decimal(tenth) / 10 for tenth in range(1, 10))
"""0.1 ... 0.9, exact."""


@dataclass(frozen=True)
class ThresholdRow:
    """The rows kept at one threshold; coverage, accuracy and F1 in [0, 1], None where nothing is kept."""

    threshold: Decimal
    n: int
    coverage: float | None
    accuracy: float | None
    f1: float | None


@dataclass(frozen=True)
class CurvePoint:
    """What is kept when the least confidence that is kept is `threshold`; all in [0, 1]."""

    threshold: float
    coverage: float
    accuracy: float
    n: int


def threshold_table(
    truth: Sequence[str],
    predicted: Sequence[str | None],
    correct: Sequence[bool],
    confidence: Sequence[Decimal | None],
    thresholds: Sequence[Decimal] = THRESHOLDS,
) -> list[ThresholdRow]:
    """Accuracy, weighted F1 and coverage of the rows whose confidence is at least each threshold.

    Args:
        truth: n true labels.
        predicted: n predicted labels, None where a row has no answer.
        correct: n flags, whether the answer is right.
        confidence: n stated confidences in [0, 1], None where a row has none.
        thresholds: compared exactly, so keep them decimal.
    Returns:
        One row a threshold, in the order given.
    Raises:
        ValueError: different lengths.
    """
    rows = list(zip(truth, predicted, correct, confidence, strict=True))
    table = []
    for threshold in thresholds:
        kept = [row for row in rows if row[3] is not None and row[3] >= threshold]
        table.append(
            ThresholdRow(
                threshold=threshold,
                n=len(kept),
                coverage=len(kept) / len(rows) if rows else None,
                accuracy=accuracy([row[2] for row in kept]),
                f1=weighted_f1([row[0] for row in kept], [row[1] for row in kept]),
            )
        )
    return table


def selective_curve(correct: Sequence[bool], confidence: Sequence[Decimal | None]) -> list[CurvePoint]:
    """Coverage and accuracy at every confidence that occurs, highest first, so that coverage rises.

    Args:
        correct: n flags, whether the answer is right.
        confidence: n stated confidences in [0, 1], None where a row has none.
    Returns:
        One point a distinct confidence; empty where no row has one.
    Raises:
        ValueError: different lengths, or a confidence outside [0, 1].
    """
    stated = [(c, right) for c, right in zip(confidence, correct, strict=True) if c is not None]
    points = []
    n = n_correct = 0
    for level in reversed(confidence_levels([c for c, _ in stated], [right for _, right in stated])):
        n += level.n
        n_correct += level.n_correct
        points.append(
            CurvePoint(
                threshold=float(level.confidence),
                coverage=n / len(correct),
                accuracy=n_correct / n,
                n=n,
            )
        )
    return points
