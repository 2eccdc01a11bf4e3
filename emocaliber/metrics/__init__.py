"""Numbers out of arrays: accuracy, calibration, selective prediction.

Nothing here knows records, tasks or files. Every number is exact (integers and fractions until the last
division, `math.fsum` where the inputs are floats), so no number depends on the order of the rows.
"""

from emocaliber.metrics.accuracy import accuracy, weighted_f1
from emocaliber.metrics.calibration import (
    Level,
    ReliabilityBin,
    auroc,
    bayes_accuracy,
    brier,
    confidence_levels,
    ece,
    mean,
    reliability_bins,
    truth_gap,
)
from emocaliber.metrics.selective import (
    THRESHOLDS,
    CurvePoint,
    ThresholdRow,
    selective_curve,
    threshold_table,
)

__all__ = [
    "THRESHOLDS",
    "CurvePoint",
    "Level",
    "ReliabilityBin",
    "ThresholdRow",
    "accuracy",
    "auroc",
    "bayes_accuracy",
    "brier",
    "confidence_levels",
    "ece",
    "mean",
    "reliability_bins",
    "selective_curve",
    "threshold_table",
    "truth_gap",
    "weighted_f1",
]
