"""Every score of a set of rows, by name, from its counts; accuracy and weighted F1 themselves."""

import numpy as np

from emocaliber.metrics import calibration, selective
from emocaliber.metrics.counts import N_TENTHS, FloatArray, LevelCounts, ratio
from emocaliber.metrics.rows import GroupCounts
from emocaliber.metrics.selective import COVERAGES, RISKS


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


SCORES = (
    *("acc", "f1", "ece", "brier", "auroc"),
    *("ece_equal_mass", "ece_debiased", "smooth_ece"),
    *("brier_miscalibration", "brier_discrimination", "brier_uncertainty", "average_precision"),
    *("aurc", "eaurc", "augrc"),
    *(f"risk_at_coverage_{percent}" for percent in COVERAGES),
    *(f"coverage_at_risk_{percent}" for percent in RISKS),
)
"""The names of all scores, those of the published tables first. Each is a fraction."""

BIASED_UPWARD = frozenset(
    ("ece", "ece_equal_mass", "smooth_ece", "brier_miscalibration", "brier_discrimination")
)
"""Distances, and a gain fitted to the data: sampling noise lengthens them."""

ESTIMATED_BY_A_DRAW = {score: score for score in BIASED_UPWARD} | {"ece_debiased": "ece"}
"""For scores with a basic interval: which score of the data their bootstrap draws estimate.

A debiased ECE of a draw estimates the ECE of the population drawn from, and that is the ECE of the data.
"""

RANGE = {"ece_debiased": (-1.0, 1.0), "brier_discrimination": (0.0, 0.25)}
"""What scores with a basic interval can be, where not [0, 1]: discrimination is at most a variance."""


def scores(counts: GroupCounts, smooth_enough: float = 1e-9) -> dict[str, FloatArray]:
    """Each of `SCORES` for every leading entry of the counts, NaN where it is undefined.

    `smooth_enough`: how exactly the width of the smooth ECE is found.
    """
    levels = counts.levels
    rows = selective.ranked(levels)
    found = compared_scores(counts, smooth_enough) | {
        "ece_equal_mass": calibration.ece_equal_mass(levels),
        "ece_debiased": calibration.ece_debiased(levels),
        **{f"brier_{part}": value for part, value in calibration.brier_parts(levels).items()},
        "average_precision": calibration.average_precision(levels),
        "aurc": selective.aurc(rows),
        "eaurc": selective.eaurc(rows),
        **{f"risk_at_coverage_{percent}": selective.risk_at_coverage(rows, percent) for percent in COVERAGES},
        **{f"coverage_at_risk_{percent}": selective.coverage_at_risk(rows, percent) for percent in RISKS},
    }
    return {score: found[score] for score in SCORES}


def compared_scores(counts: GroupCounts, smooth_enough: float = 1e-9) -> dict[str, FloatArray]:
    """The few of `SCORES` that answers are compared by, and `n_stated`, the rows with a confidence.

    Fewer than `scores` gives, because a comparison needs many draws.
    """
    levels = counts.levels
    by_label = (counts.support.sum(axis=-2), counts.predicted.sum(axis=-2), counts.hits.sum(axis=-2))
    return {
        "acc": accuracy(levels),
        "f1": weighted_f1(*by_label),
        "ece": calibration.ece(levels),
        "smooth_ece": calibration.smooth_ece(levels, smooth_enough),
        "brier": calibration.brier(levels),
        "auroc": calibration.auroc(levels),
        "augrc": selective.augrc(selective.ranked(levels)),
        "n_stated": levels.n_stated,
    }


THRESHOLDS = tuple(f"0.{tenth}" for tenth in range(1, N_TENTHS))
"""The confidences of the threshold table."""


def threshold_scores(counts: GroupCounts) -> dict[str, FloatArray]:
    """`acc_at_T`, `f1_at_T` of the rows whose confidence is at least T, and `coverage_at_T`, T of
    `THRESHOLDS`.

    Coverage is their share of all rows, with or without a confidence; the others are NaN where nothing is
    kept.
    """
    levels = counts.levels
    kept = selective.at_least(levels.binned(levels.n)[..., None])[..., 0]
    right = selective.at_least(levels.binned(levels.n_correct)[..., None])[..., 0]
    # Entry 0 holds the rows without a confidence, which are never kept.
    by_label = (counts.support, counts.predicted, counts.hits)
    f1 = weighted_f1(*(selective.at_least(count[..., 1:, :]) for count in by_label))
    coverage = ratio(kept, (levels.n_stated + levels.n_missing)[..., None])
    found = {"acc": ratio(right, kept), "f1": f1, "coverage": coverage}
    return {
        f"{name}_at_{threshold}": values[..., place]
        for name, values in found.items()
        for place, threshold in enumerate(THRESHOLDS)
    }
