"""Selective prediction: how wrong the most confident answers are, for every share of rows that is kept.

Rows are kept in the order of falling confidence; a row without a confidence comes last, so it is never
dropped from an average. Tied rows are kept in a random order, and every risk is the exact expectation over
it: inside a tie the errors grow linearly with the rows kept. A coverage at a risk is read off that expected
curve. So no number depends on the order of the rows.
"""

from dataclasses import dataclass

import numpy as np

from emocaliber.metrics.counts import N_TENTHS, FloatArray, LevelCounts, ratio

COVERAGES = (50, 70, 90)
"""Percent of the rows kept at which the risk is reported."""

RISKS = (5, 10, 20)
"""Percent of wrong answers allowed at which the coverage is reported."""


@dataclass(frozen=True)
class CurvePoint:
    """What is kept when the least confidence that is kept is `threshold`; all in [0, 1]."""

    threshold: float
    coverage: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Ranked:
    """Rows kept and wrong answers among them at the ends of the ties, most confident first, [..., ties + 1].

    Both begin with 0. The last tie is that of the rows without a confidence.
    """

    kept: FloatArray
    wrong: FloatArray

    @property
    def total(self) -> FloatArray:
        """All rows, [...]."""
        return self.kept[..., -1]


def ranked(levels: LevelCounts) -> Ranked:
    """Order the rows by falling confidence, those without one last."""
    n = np.concatenate([levels.n[..., ::-1], levels.n_missing[..., None]], axis=-1)
    right = np.concatenate([levels.n_correct[..., ::-1], levels.n_correct_missing[..., None]], axis=-1)
    start = np.zeros((*n.shape[:-1], 1))
    return Ranked(
        kept=np.concatenate([start, np.cumsum(n, axis=-1)], axis=-1),
        wrong=np.concatenate([start, np.cumsum(n - right, axis=-1)], axis=-1),
    )


def aurc(rows: Ranked) -> FloatArray:
    """Area under the risk-coverage curve: the mean over k of the error rate of the k most confident rows.

    Geifman, Uziel & El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation", eq. 3; lower is better. A tie of m
    rows with e errors after N rows with E errors gives sum over j of (E + j e / m) / (N + j), in closed form
    by harmonic numbers.
    """
    n, errors = np.diff(rows.kept, axis=-1), np.diff(rows.wrong, axis=-1)
    before, wrong_before = rows.kept[..., :-1], rows.wrong[..., :-1]
    harmonic = _harmonic(rows.kept)
    steps = np.diff(harmonic[rows.kept.astype(np.int64)], axis=-1)
    rate = np.nan_to_num(ratio(errors, n))
    return ratio((errors + (wrong_before - before * rate) * steps).sum(axis=-1), rows.total)


def eaurc(rows: Ranked) -> FloatArray:
    """AURC less that of the best order with the same errors, all of them last (same source, eq. 4)."""
    errors = rows.wrong[..., -1]
    right = rows.total - errors
    harmonic = _harmonic(rows.kept)
    last = harmonic[rows.total.astype(np.int64)] - harmonic[right.astype(np.int64)]
    best = ratio(errors - right * last, rows.total)
    return np.maximum(aurc(rows) - best, 0.0)


def augrc(rows: Ranked) -> FloatArray:
    """Area under the generalised risk-coverage curve: wrong answers kept, as a share of all rows, over
    coverage.

    Traub et al. 2024, "Overcoming Common Flaws in the Evaluation of Selective Classification Systems"
    (arXiv 2407.01032), eq. 7; equal to (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with a the accuracy. Lower is
    better.
    """
    n, errors = np.diff(rows.kept, axis=-1), np.diff(rows.wrong, axis=-1)
    area = (n * (rows.wrong[..., :-1] + errors / 2)).sum(axis=-1)
    return ratio(area, rows.total**2)


def risk_at_coverage(rows: Ranked, percent: int) -> FloatArray:
    """Error rate of the most confident `percent` of all rows, in [0, 1]."""
    wanted = rows.total * percent / 100
    before, after = rows.kept[..., :-1], rows.kept[..., 1:]
    share = np.nan_to_num(ratio(np.clip(wanted[..., None] - before, 0, after - before), after - before))
    return ratio((share * np.diff(rows.wrong, axis=-1)).sum(axis=-1), wanted)


def coverage_at_risk(rows: Ranked, percent: int) -> FloatArray:
    """Largest share of the rows that can be kept with at most `percent` of the kept ones wrong, in [0, 1]."""
    kept, wrong = rows.kept, rows.wrong
    # In whole numbers, so that a risk that is met exactly counts as met.
    excess = 100 * wrong - percent * kept
    before, after = excess[..., :-1], excess[..., 1:]
    # Where a tie takes the excess from at most 0 to above, the crossing lies inside the tie.
    crossing = kept[..., :-1] + np.diff(kept, axis=-1) * ratio(-before, after - before)
    reached = np.where(after <= 0, kept[..., 1:], np.where(before <= 0, crossing, 0.0))
    return ratio(reached.max(axis=-1), rows.total)


def _harmonic(kept: FloatArray) -> FloatArray:
    """H_0, H_1, ... up to the largest number of rows."""
    most = int(kept.max(initial=0))
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1))])


def selective_curve(levels: LevelCounts) -> list[CurvePoint]:
    """Coverage and accuracy at every stated confidence, highest first, of counts without leading axes."""
    rows = ranked(levels)
    kept, wrong = rows.kept[1:-1], rows.wrong[1:-1]
    return [
        CurvePoint(
            threshold=float(threshold),
            coverage=float(n / rows.total),
            accuracy=float((n - errors) / n),
            n=int(n),
        )
        for threshold, n, errors in zip(levels.confidence[::-1], kept, wrong, strict=True)
    ]


def at_least(per_tenth: FloatArray) -> FloatArray:
    """Counts of the rows whose confidence is at least 0.1, ... 0.9, from counts per bin of ten.

    Args:
        per_tenth: [..., 10, labels] or [..., 10, 1].
    Returns:
        [..., 9, labels]: the confidence is compared on the stated decimal, as the bins are.
    """
    from_the_top: FloatArray = np.cumsum(per_tenth[..., ::-1, :], axis=-2)[..., ::-1, :]
    return from_the_top[..., 1:N_TENTHS, :]
