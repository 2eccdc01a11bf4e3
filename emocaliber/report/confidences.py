"""Rows with more confidences than the stated one: which ranks best, and which is calibrated best.

All are scored on the same rows, those in which every one of them can be read, under the same bootstrap draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emocaliber.confidences import CONFIDENCES, is_beyond_stated, read_confidences
from emocaliber.metrics.intervals import Interval, Resampled, difference, interval, mean_over
from emocaliber.report.compared import (
    COMPARED,
    Compared,
    ComparedAnswers,
    ConfidenceScores,
    SetKey,
    confidence_scores,
)
from emocaliber.report.results import OVERALL
from emocaliber.scoring import ScoredRow

WITHIN_TASKS = "auroc_within_tasks"
"""The mean of the ROC AUC over the tasks in which it is defined for all that are compared."""

SCORES = (*COMPARED, WITHIN_TASKS)
RANKING, CALIBRATION = WITHIN_TASKS, "smooth_ece"
"""What decides which confidence ranks best, and which is calibrated best."""

_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Occurrence:
    """How often a confidence can be read: in `n` rows; the others by reason.

    `tokens`: the mean number of tokens that it took, prompts included, in the rows that tell
    (`confidence_tokens`); None where none does. `is_compared`: it is there in half of the rows.
    """

    n: int
    reasons: dict[str, int]
    tokens: float | None
    is_compared: bool


@dataclass(frozen=True)
class Best:
    """Of those compared, `name` has the best `score`, `value`.

    `others`: by name, the score of the best less theirs, and its 95 % interval from paired draws, None
    without one. `not_told_apart`: those of which the interval holds 0, or which have none.
    """

    score: str
    name: str
    value: float
    others: dict[str, tuple[float, Interval | None]]

    @property
    def not_told_apart(self) -> tuple[str, ...]:
        """The names of the others that may be as good."""
        return tuple(
            name for name, (_, found) in self.others.items() if found is None or found[0] <= 0 <= found[1]
        )


@dataclass(frozen=True)
class ComparedRows:
    """The scores of `n` rows by confidence; the best in ranking and in calibration, None if undefined."""

    name: str
    n: int
    confidences: dict[str, ConfidenceScores]
    ranks_best: Best | None
    calibrated_best: Best | None


@dataclass(frozen=True)
class ConfidenceReport:
    """`n_rows` rows hold a confidence beyond the stated one; of these, all that are compared, `n_compared`.

    `occurrences`: by name, of `n_rows`. `tasks`, `groups` in the order of the tables; these and `overall` are
    empty and None where no row has all.
    """

    n_rows: int
    n_compared: int
    n_draws: int
    seed: int
    occurrences: dict[str, Occurrence]
    tasks: tuple[ComparedRows, ...]
    groups: tuple[ComparedRows, ...]
    overall: ComparedRows | None

    @property
    def compared(self) -> tuple[str, ...]:
        """The names of those that are compared, in the order of `CONFIDENCES`."""
        return tuple(name for name, found in self.occurrences.items() if found.is_compared)


class ConfidenceCollector:
    """Takes rows in one at a time; keeps about a kilobyte of each with further confidences."""

    def __init__(self) -> None:
        self._answers = ComparedAnswers(CONFIDENCES)
        self._n_rows = 0
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in CONFIDENCES}
        self._tokens: dict[str, list[int]] = {}

    def add(self, record: Mapping[str, Any], row: ScoredRow) -> None:
        """Take in a row if it holds more confidences than the stated one and samples; `row`: it, scored.

        Raises RecordError for samples that are not texts.
        """
        if row.status == "failed" or not is_beyond_stated(record):
            return
        found = read_confidences(record, row)
        self._answers.add(row, {name: (one.label, one.value) for name, one in found.items()})
        self._n_rows += 1
        for name, reasons in self._reasons.items():
            one = found.get(name)
            if one is None or one.value is None:
                reasons[(one.reason if one else None) or "missing"] += 1
        tokens = record.get("confidence_tokens")
        for name, n in tokens.items() if isinstance(tokens, dict) else ():
            if isinstance(n, int) and name in CONFIDENCES:
                told = self._tokens.setdefault(name, [0, 0])
                told[0] += n
                told[1] += 1

    def report(self, n_draws: int, seed: int) -> ConfidenceReport | None:
        """Give the numbers, with intervals from `n_draws` draws; None with fewer than two to compare."""
        occurrences = self._occurrences()
        names = [name for name, found in occurrences.items() if found.is_compared]
        if len(names) < 2:
            return None
        has = self._answers.with_confidence()
        in_all = np.logical_and.reduce([has[name] for name in names])
        sets: dict[SetKey, ComparedRows] = {}
        if in_all.any():
            compared = self._answers.compare(names, n_draws, seed, only=in_all)
            sets = {key: _compared_rows(key, compared) for key in compared.tasks_of_set}
        return ConfidenceReport(
            n_rows=self._n_rows,
            n_compared=int(in_all.sum()),
            n_draws=n_draws,
            seed=seed,
            occurrences=occurrences,
            tasks=tuple(rows for (kind, _), rows in sets.items() if kind == "task"),
            groups=tuple(rows for (kind, _), rows in sets.items() if kind == "group"),
            overall=sets.get(("all", OVERALL)),
        )

    def _occurrences(self) -> dict[str, Occurrence]:
        found = {}
        for name, reasons in self._reasons.items():
            n = self._n_rows - reasons.total()
            is_there = n > 0 or set(reasons) - {"missing"}
            if is_there:
                total, told = self._tokens.get(name, (0, 0))
                found[name] = Occurrence(
                    n,
                    dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
                    total / told if told else None,
                    n > 0 and n >= _LEAST_SHARE * self._n_rows,
                )
        return found


def _compared_rows(key: SetKey, compared: Compared) -> ComparedRows:
    scored = _with_task_mean(compared, key)
    first = next(iter(scored.values()))
    return ComparedRows(
        name=key[1],
        n=len(compared.inside(key)),
        confidences={name: confidence_scores(one, first, SCORES) for name, one in scored.items()},
        ranks_best=_best(scored, RANKING, max),
        calibrated_best=_best(scored, CALIBRATION, min),
    )


def _with_task_mean(compared: Compared, key: SetKey) -> dict[str, Resampled]:
    """The scores of a set by name, with the mean of the ROC AUC over its tasks as one more of them."""
    of_task = [compared.of_set(("task", task)) for task in compared.tasks_of_set[key]]
    defined = [some for some in of_task if not any(np.isnan(one.point["auroc"]) for one in some.values())]
    found = {}
    for name, scored in compared.of_set(key).items():
        mean = mean_over([some[name] for some in defined or of_task[:1]])
        parts = (
            {**values, WITHIN_TASKS: means["auroc"] if defined else np.full_like(means["auroc"], np.nan)}
            for values, means in (
                (scored.point, mean.point),
                (scored.draws, mean.draws),
                (scored.drawn_from, mean.drawn_from),
            )
        )
        found[name] = Resampled(*parts)
    return found


def _best(scored: Mapping[str, Resampled], score: str, choose: Any) -> Best | None:
    values = {name: value for name, one in scored.items() if (value := one.value(score)) is not None}
    if not values:
        return None
    name = choose(values, key=values.__getitem__)  # of equals, the first
    others = {}
    for other in values:
        if other != name:
            less, draws = difference(scored[other], scored[name], score)
            others[other] = (less or 0.0, interval(less, draws))
    return Best(score, name, values[name], others)
