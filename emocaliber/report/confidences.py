"""Rows with more confidences than the stated one: which ranks best, and which is calibrated best.

All are scored on the same rows, those in which every one of them can be read, under the same bootstrap draws.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emocaliber.confidences import (
    AGREEMENT,
    CONFIDENCES,
    MEAN_STATED,
    is_beyond_stated,
    majority,
    read_confidences,
    read_samples,
)
from emocaliber.metrics.counts import IntArray, mean
from emocaliber.metrics.intervals import (
    Interval,
    Resampled,
    difference,
    interval,
    mean_interval,
    mean_over,
    resample,
)
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import compared_scores
from emocaliber.report.collector import Collector
from emocaliber.report.summary import OVERALL
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


RESPONSE = "response"
SAMPLE_CONFIDENCES = (RESPONSE, AGREEMENT, MEAN_STATED)
"""`response`: its answer, with the confidence that it states. The other two: the majority's answer, with the
share of the samples that name it, and with the mean confidence that these state.
"""


@dataclass(frozen=True)
class SampledRows:
    """`n` rows with `fewest` to `most` samples each; scores in [0, 1].

    `mean_acc`: the mean over rows of the share of their samples that are right. `spread`: the standard
    deviation of the accuracies of the first, second, ... samples (with k - 1), None where not every row has
    as many. `agreement`: the mean share of the samples that name the majority, 0 where none has a label.
    `n_tied`: rows whose majority was decided by confidence or order; `n_undecided`: rows without a majority.
    """

    name: str
    n: int
    fewest: int
    most: int
    mean_acc: float | None
    mean_acc_interval: Interval | None
    spread: float | None
    agreement: float | None
    agreement_interval: Interval | None
    n_tied: int
    n_undecided: int
    confidences: dict[str, ConfidenceScores]


@dataclass(frozen=True)
class SampleReport:
    """What is reported about the rows with at least two samples; tasks and groups in the tables' order."""

    n_images: int
    n_draws: int
    seed: int
    tasks: tuple[SampledRows, ...]
    groups: tuple[SampledRows, ...]
    overall: SampledRows

    @property
    def pooled(self) -> tuple[SampledRows, ...]:
        """The groups, then everything together."""
        return (*self.groups, self.overall)


class SampleCollector:
    """Takes rows in one at a time; keeps some hundred bytes of each that has samples."""

    def __init__(self) -> None:
        self._answers = ComparedAnswers(SAMPLE_CONFIDENCES)
        self._counts = {name: array("i") for name in ("k", "n_right", "n_agreeing", "is_tied")}
        # By task, how often its first, second, ... samples are right.
        self._right_of_place: dict[str, list[int]] = {}

    def add(self, record: Mapping[str, Any], row: ScoredRow) -> None:
        """Take in a row if it has at least two samples; `row`: the record, scored.

        Raises RecordError for samples that are not texts.
        """
        samples = read_samples(record, row)
        if samples is None:
            return
        voted = majority(samples, row.candidates)
        self._answers.add(
            row,
            {
                RESPONSE: (row.label, row.confidence),
                AGREEMENT: (voted.label, voted.agreement),
                MEAN_STATED: (voted.label, voted.mean_confidence),
            },
        )
        right = [sample.label == row.truth for sample in samples]
        counts = {"k": len(samples), "n_right": sum(right), "n_agreeing": voted.n, "is_tied": voted.is_tie}
        for name, count in counts.items():
            self._counts[name].append(count)
        places = self._right_of_place.setdefault(row.task, [])
        places.extend([0] * (len(right) - len(places)))
        for place, is_right in enumerate(right):
            places[place] += is_right

    def report(self, n_draws: int, seed: int) -> SampleReport | None:
        """Give the numbers, with intervals from `n_draws` draws over images; None without such rows."""
        if not self._counts["k"]:
            return None
        compared = self._answers.compare(SAMPLE_CONFIDENCES, n_draws, seed)
        results = {
            key: self._sampled_rows(key, compared, with_intervals=n_draws > 0)
            for key in compared.tasks_of_set
        }
        return SampleReport(
            n_images=compared.n_images,
            n_draws=n_draws,
            seed=seed,
            tasks=tuple(result for (kind, _), result in results.items() if kind == "task"),
            groups=tuple(result for (kind, _), result in results.items() if kind == "group"),
            overall=results["all", OVERALL],
        )

    def _sampled_rows(self, key: SetKey, compared: Compared, *, with_intervals: bool) -> SampledRows:
        inside, resampled = compared.inside(key), compared.of_set(key)
        counts = {what: np.array(column)[inside] for what, column in self._counts.items()}
        k = counts["k"]
        means = {"acc": counts["n_right"] / k, "agreement": counts["n_agreeing"] / k}
        intervals = {
            what: mean_interval(values, np.ones(len(values)), compared.image[inside])
            if with_intervals
            else None
            for what, values in means.items()
        }
        fewest, most = int(k.min()), int(k.max())
        places = zip(*(self._right_of_place[task] for task in compared.tasks_of_set[key]), strict=False)
        return SampledRows(
            name=key[1],
            n=len(inside),
            fewest=fewest,
            most=most,
            mean_acc=mean(means["acc"].tolist()),
            mean_acc_interval=_cut(intervals["acc"]),
            spread=stdev(map(sum, places)) / len(inside) if fewest == most else None,
            agreement=mean(means["agreement"].tolist()),
            agreement_interval=_cut(intervals["agreement"]),
            n_tied=int(counts["is_tied"].sum()),
            n_undecided=int((counts["n_agreeing"] == 0).sum()),
            confidences={
                name: confidence_scores(scored, resampled[RESPONSE]) for name, scored in resampled.items()
            },
        )


def _cut(found: Interval | None) -> Interval | None:
    """The interval of a mean of shares, cut to [0, 1]."""
    return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))
