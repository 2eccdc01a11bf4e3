"""How often an answer is right: accuracy and class-weighted F1."""

from __future__ import annotations

import numpy as np

from emocaliber.metrics.counts import FloatArray, LevelCounts, ratio


def accuracy(levels: LevelCounts) -> FloatArray:
    """Share of right answers among all rows, with or without a confidence; in [0, 1], NaN without rows."""
    n_right = levels.n_correct.sum(axis=-1) + levels.n_correct_missing
    return ratio(n_right, levels.n_stated + levels.n_missing)


def weighted_f1(support: FloatArray, predicted: FloatArray, hits: FloatArray) -> FloatArray:
    """F1 of every true label, averaged with the number of its rows as weight; in [0, 1], NaN without rows.

    Equal to scikit-learn's `f1_score(average="weighted", zero_division=0)` where a row without an answer is
    predicted as a label that no row truly has (the published evaluator's `unknown`).

    Args:
        support: rows that truly have each label, [..., labels].
        predicted: rows that are answered with each label, [..., labels]; a row without an answer in none.
        hits: rows that truly have the label and are answered with it, [..., labels].
    """
    # A label without a true row has weight 0, whatever is predicted.
    weighted = support * np.nan_to_num(ratio(2 * hits, support + predicted))
    return ratio(weighted.sum(axis=-1), support.sum(axis=-1))
