"""Confidences mapped after the fact: temperature, Platt and isotonic maps, fitted on held-out rows.

Each map is fitted on the confidence of an answer and whether it was right, and knows nothing else: what a
model's stated confidence can be made of without training it. Temperature and Platt maps with a slope above 0
keep the order of the confidences, and so the AUROC. An isotonic map never inverts two confidences, but it
makes many of them equal, which can move the AUROC either way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emocaliber.metrics.counts import FloatArray

CLIP = 0.005
"""Temperature and Platt maps see the logit of a confidence cut to [CLIP, 1 - CLIP]: 0 and 1 have none.

Half of the hundredth to which confidences are stated.
"""

LEAST_ROWS = 50
"""A task with fewer held-out rows than this has the map of all tasks."""

_HIGHEST_LOG_TEMPERATURE = 6.0  # a temperature of 400 makes every confidence one half, to two decimals


@dataclass(frozen=True)
class LogitMap:
    """c -> sigmoid(slope * logit(c) + intercept), the logit taken of c cut to [CLIP, 1 - CLIP]."""

    slope: float
    intercept: float

    def __call__(self, confidence: ArrayLike) -> FloatArray:
        """Map confidences [n] in [0, 1] to [n] in [0, 1]."""
        from scipy.special import expit

        mapped: FloatArray = expit(self.slope * _logit(confidence) + self.intercept)
        return mapped


@dataclass(frozen=True)
class IsotonicMap:
    """Linear between `confidence` [k], ascending, and `value` [k], never falling; flat beyond the ends."""

    confidence: FloatArray
    value: FloatArray

    def __call__(self, confidence: ArrayLike) -> FloatArray:
        """Map confidences [n] in [0, 1] to [n] in [0, 1]."""
        mapped: FloatArray = np.interp(_floats(confidence), self.confidence, self.value)
        return mapped


PosthocMap = LogitMap | IsotonicMap


@dataclass(frozen=True)
class TaskMaps:
    """One map a task, and `pooled` for the tasks without one of their own, `fell_back` among them."""

    pooled: PosthocMap
    of_task: Mapping[str, PosthocMap]
    fell_back: tuple[str, ...]

    def __call__(self, confidence: ArrayLike, task: Sequence[str]) -> FloatArray:
        """Map confidences [n] in [0, 1], each by the map of its task [n], to [n] in [0, 1]."""
        stated = _floats(confidence)
        tasks = _tasks(task, len(stated))
        mapped = np.empty(len(stated))
        for name in dict.fromkeys(tasks):
            inside = tasks == name
            mapped[inside] = self.of_task.get(name, self.pooled)(stated[inside])
        return mapped


def fit_temperature(confidence: ArrayLike, correct: ArrayLike) -> LogitMap:
    """The one temperature T of sigmoid(logit(c) / T) with the least log loss, T in [1/400, 400].

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2, on the logit of the stated
    confidence in place of the network's.

    Args:
        confidence: [n] in [0, 1].
        correct: [n], whether each answer is right.
    Raises:
        ValueError: no rows, different lengths, or a confidence that is not in [0, 1].
    """
    from scipy.optimize import minimize_scalar

    stated, right = _checked(confidence, correct)
    logit = _logit(stated)
    found = minimize_scalar(
        lambda log_temperature: _log_loss(logit * np.exp(-log_temperature), right),
        bounds=(-_HIGHEST_LOG_TEMPERATURE, _HIGHEST_LOG_TEMPERATURE),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return LogitMap(float(np.exp(-found.x)), 0.0)


def fit_platt(confidence: ArrayLike, correct: ArrayLike) -> LogitMap:
    """The logistic regression of being right on the logit of the confidence, without a penalty.

    Platt 1999, "Probabilistic Outputs for Support Vector Machines", without its smoothing of the targets.
    Raises ValueError as `fit_temperature`, and where every answer is right or every answer wrong.
    """
    from sklearn.linear_model import LogisticRegression

    stated, right = _checked(confidence, correct)
    if right.all() or not right.any():
        raise ValueError("every answer is right or every answer is wrong: no logistic regression fits that")
    # C = inf is scikit-learn's way to ask for no penalty.
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(_logit(stated)[:, None], right)
    return LogitMap(float(model.coef_[0, 0]), float(model.intercept_[0]))


def fit_isotonic(confidence: ArrayLike, correct: ArrayLike) -> IsotonicMap:
    """The never falling map with the least Brier score on these rows; confidences beyond theirs get its ends.

    Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
    Raises ValueError as `fit_temperature`.
    """
    from sklearn.isotonic import IsotonicRegression

    stated, right = _checked(confidence, correct)
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(stated, right)
    return IsotonicMap(np.asarray(model.X_thresholds_, float), np.asarray(model.y_thresholds_, float))


Fit = Callable[[Any, Any], PosthocMap]
FITS: Mapping[str, Fit] = {"temperature": fit_temperature, "platt": fit_platt, "isotonic": fit_isotonic}
"""How each map is fitted, by name."""


def fit_per_task(fit: Fit, confidence: ArrayLike, correct: ArrayLike, task: Sequence[str]) -> TaskMaps:
    """Fit a map for each task, and one for all rows.

    A task with fewer than LEAST_ROWS rows, or with only right or only wrong answers, falls back to the pooled
    map; `fell_back` names these. So does a task that does not occur here.

    Args:
        fit: one of `FITS`.
        confidence, correct: as for the fit, [n].
        task: the name of each row's task, [n].
    Raises:
        ValueError: as `fit` on all rows, and for another number of tasks than rows.
    """
    stated, right = _checked(confidence, correct)
    tasks = _tasks(task, len(stated))
    of_task, fell_back = {}, []
    for name in sorted(set(tasks)):
        inside = tasks == name
        n_right = int(right[inside].sum())
        if inside.sum() < LEAST_ROWS or n_right in (0, inside.sum()):
            fell_back.append(name)
        else:
            of_task[name] = fit(stated[inside], right[inside])
    return TaskMaps(fit(stated, right), of_task, tuple(fell_back))


def _floats(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _tasks(task: Sequence[str], n_rows: int) -> NDArray[np.object_]:
    if len(task) != n_rows:
        raise ValueError(f"{n_rows} confidences and {len(task)} tasks; give one task a row")
    return np.asarray(task, dtype=object)


def _logit(confidence: ArrayLike) -> FloatArray:
    from scipy.special import logit

    found: FloatArray = logit(np.clip(_floats(confidence), CLIP, 1 - CLIP))
    return found


def _log_loss(logit: FloatArray, right: NDArray[np.bool_]) -> float:
    # - ln sigmoid(x) = ln(1 + exp(-x)), which logaddexp gives without overflow.
    return float(np.logaddexp(0.0, np.where(right, -logit, logit)).mean())


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    stated, right = _floats(confidence), np.asarray(correct, dtype=bool)
    if stated.shape != right.shape or stated.ndim != 1 or not len(stated):
        raise ValueError(
            f"{stated.size} confidences and {right.size} answers; give one of each a row, and rows"
        )
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("a confidence is not in [0, 1]")
    return stated, right
