"""Smooth calibration error: an ECE without bins, whose one width the data choose.

Błasiok & Nakkiran 2023, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing" (arXiv
2309.12236): residuals are smoothed by a Gaussian reflected at 0 and 1, smECE_sigma is the integral of the
absolute smoothed residual, and smECE the one value with smECE_sigma = sigma (their definitions 2 and 3).

On [0, 1] that kernel is diagonal in the cosine basis: smoothing multiplies the k-th coefficient by
exp(-(pi k sigma)^2 / 2). So the confidences are used where they are, and many draws are smoothed at once.
"""

from __future__ import annotations

import math

import numpy as np

from emocaliber.metrics.counts import FloatArray, LevelCounts, ratio

_N_COEFFICIENTS = 512
# Narrower kernels than this are not resolved by the coefficients above; below it the width is not searched.
_SMALLEST_WIDTH = 0.004
_CLOSE_ENOUGH = 1e-9
_MOST_STEPS = 60
_DRAWS_AT_ONCE = 512
_LEVELS_AT_ONCE = 4096


def smooth_ece(levels: LevelCounts, close_enough: float = _CLOSE_ENOUGH) -> FloatArray:
    """Smooth calibration error of each leading entry of the counts, in [0, 1]; NaN where there are no rows.

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
