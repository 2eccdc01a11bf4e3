"""Several answers with a confidence to the same rows, scored under the same bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from emocaliber.metrics.counts import IntArray
from emocaliber.metrics.intervals import Interval, Resampled, difference, interval, resample
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import compared_scores
from emocaliber.report.collector import Collector
from emocaliber.report.results import OVERALL
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import GROUPS

COMPARED = ("acc", "ece", "smooth_ece", "brier", "auroc", "augrc")
"""The scores of each, by their names in `metrics.scores`; each is a fraction."""

SetKey = tuple[str, str]
"""A set of rows that is reported: its kind, `task`, `group` or `all`, and its name."""


@dataclass(frozen=True)
class ConfidenceScores:
    """The scores of one answer and its confidence, `n` of whose rows have a confidence, with 95 % intervals.

    `differences`: each score less that of the first of those compared, on the same rows, with intervals from
    the same draws; None where one of the two is undefined.
    """

    n: int
    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]
    differences: dict[str, float | None]
    difference_intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Compared:
    """The same rows under every name. `tasks_of_set`: the names of the tasks of every set of rows.

    `scored`: by name and set. `task`, `image` [n]: the place of each row's task in `tasks`, and its image.
    """

    tasks: list[str]
    tasks_of_set: dict[SetKey, list[str]]
    scored: dict[tuple[str, SetKey], Resampled]
    task: IntArray
    image: IntArray
    n_images: int

    def inside(self, key: SetKey) -> IntArray:
        """The places of the rows of a set."""
        members = [self.tasks.index(task) for task in self.tasks_of_set[key]]
        return np.flatnonzero(np.isin(self.task, members))

    def of_set(self, key: SetKey) -> dict[str, Resampled]:
        """The scores of a set by name."""
        return {name: scored for (name, one), scored in self.scored.items() if one == key}


class ComparedAnswers:
    """Takes rows in one at a time, with an answer and a confidence of each name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._answers = {name: Collector() for name in names}

    def add(self, row: ScoredRow, answers: Mapping[str, tuple[str | None, Decimal | None]]) -> None:
        """Take one row in; a name that `answers` does not have gets no answer and no confidence."""
        for name, collector in self._answers.items():
            collector.add(_as_row(row, *answers.get(name, (None, None))))

    def with_confidence(self) -> dict[str, NDArray[np.bool_]]:
        """By name, which rows have a confidence, [n]."""
        return {name: collector.rows().level >= 0 for name, collector in self._answers.items()}

    def compare(
        self, names: Sequence[str], n_draws: int, seed: int, only: NDArray[np.bool_] | None = None
    ) -> Compared:
        """Score some of the names on all rows, or `only` on those that are true, [n], at least one.

        Images are drawn by what their rows say in all of them, so that all see the same draws.
        """
        rows = {name: _some(self._answers[name].rows(), only) for name in names}
        first = next(iter(rows.values()))
        tasks = next(iter(self._answers.values())).tasks
        found = [tasks[place] for place in np.unique(first.task)]
        sets = self._sets(found)
        places = {key: [tasks.index(task) for task in members] for key, members in sets.items()}
        resampling = resample(rows, places, n_draws, seed, compared_scores)
        return Compared(tasks, sets, resampling.scored, first.task, first.image, resampling.exact.n_images)

    def _sets(self, tasks: list[str]) -> dict[SetKey, list[str]]:
        group_of = next(iter(self._answers.values())).groups
        sets: dict[SetKey, list[str]] = {("task", name): [name] for name in tasks}
        for group in GROUPS:
            members = [name for name in tasks if group_of[name] == group]
            if members:
                sets["group", group] = members
        return {**sets, ("all", OVERALL): tasks}


def confidence_scores(
    scored: Resampled, first: Resampled, names: Sequence[str] = COMPARED
) -> ConfidenceScores:
    """Give the scores of these names, and how they differ from those of the first."""
    differences, intervals = {}, {}
    for score in names:
        differences[score], draws = difference(first, scored, score)
        intervals[score] = interval(differences[score], draws)
    return ConfidenceScores(
        n=round(scored.value("n_stated") or 0.0),
        scores={score: scored.value(score) for score in names},
        intervals={score: scored.interval(score) for score in names},
        differences=differences,
        difference_intervals=intervals,
    )


def _some(rows: Rows, only: NDArray[np.bool_] | None) -> Rows:
    if only is None:
        return rows
    columns = ("task", "truth", "label", "level", "image")
    return replace(rows, **{name: getattr(rows, name)[only] for name in columns})


def _as_row(row: ScoredRow, label: str | None, confidence: Decimal | None) -> ScoredRow:
    """The row as if it had answered a label with a confidence."""
    return replace(
        row,
        label=label,
        correct=label == row.truth,
        confidence=confidence,
        status="unparsed" if label is None else "answered",
        label_reason="no_answer" if label is None else None,
        confidence_reason="missing" if confidence is None else None,
        flags=frozenset(),
        posterior=None,
    )
