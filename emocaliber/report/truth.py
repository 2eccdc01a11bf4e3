"""What was answered and stated beside the known label distribution of each image."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emocaliber.metrics.calibration import bayes_accuracy
from emocaliber.metrics.counts import FloatArray, IntArray, mean
from emocaliber.metrics.intervals import Interval, mean_interval
from emocaliber.metrics.soft import forecast_scores, soft_ece
from emocaliber.report.collector import KnownTruth
from emocaliber.report.results import Forecast, Truth


def against_truth(parts: Sequence[KnownTruth], *, with_intervals: bool) -> Truth | None:
    """Measure the rows of some tasks whose label distribution is known; None where there are none."""
    if not parts:
        return None
    columns = [part.columns() for part in parts]
    rows = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    right = rows["right"].astype(np.float64)
    stated = ~np.isnan(rows["confidence"])
    gap = np.abs(rows["confidence"] - rows["chance"])[stated]
    ones = np.ones(len(right))
    intervals = {
        "acc": (right, ones, rows["image"]),
        "bayes_acc": (rows["largest"], ones, rows["image"]),
        "acc_over_bayes": (right, rows["largest"], rows["image"]),
        "gap": (gap, ones[stated], rows["image"][stated]),
    }
    return Truth(
        n=len(right),
        n_with_confidence=int(stated.sum()),
        acc=mean(right.tolist()),
        bayes_acc=bayes_accuracy(rows["largest"].tolist()),
        gap=mean(gap.tolist()),
        intervals={
            name: _interval(name, *arguments) if with_intervals else None
            for name, arguments in intervals.items()
        },
        forecast=_forecast(rows, stated, with_intervals=with_intervals),
    )


def _forecast(rows: dict[str, NDArray[Any]], stated: NDArray[np.bool_], *, with_intervals: bool) -> Forecast:
    is_forecast = stated & (rows["answered"] == 1)
    per_row = forecast_scores(
        *(rows[name][is_forecast] for name in ("confidence", "chance", "n_labels", "entropy", "squares"))
    )
    values = {"expected_acc": rows["chance"], **per_row}
    means = {name: mean(value.tolist()) for name, value in values.items()}
    images = {name: rows["image"][is_forecast] for name in per_row} | {"expected_acc": rows["image"]}
    return Forecast(
        n=int(is_forecast.sum()),
        soft_ece=soft_ece(rows["confidence"][stated], rows["tenth"][stated], rows["chance"][stated]),
        **means,
        intervals={
            name: _interval(name, value, np.ones(len(value)), images[name]) if with_intervals else None
            for name, value in values.items()
        },
    )


# What a mean cannot exceed; none can be below 0.
_HIGHEST = {"acc": 1.0, "bayes_acc": 1.0, "gap": 1.0, "expected_acc": 1.0, "brier": 2.0}


def _interval(name: str, values: FloatArray, weights: FloatArray, image: IntArray) -> Interval | None:
    """The interval of a mean, cut to the values that it can have."""
    found = mean_interval(values, weights, image)
    return None if found is None else (max(0.0, found[0]), min(_HIGHEST.get(name, inf), found[1]))
