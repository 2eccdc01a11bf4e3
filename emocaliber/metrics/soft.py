"""Confidence against a known label distribution: as a forecast of all of it, and as the chance to be right.

p is the true distribution over the L candidate labels of a row. A row that answers `a` with the confidence c
forecasts q: c on `a`, and (1 - c) / (L - 1) on each of the other labels (all of it on `a` where L = 1), for a
single number says nothing of how the rest is shared out.
"""

from __future__ import annotations

import math

import numpy as np

from emocaliber.metrics.counts import N_TENTHS, FloatArray, IntArray

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
