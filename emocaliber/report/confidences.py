"""Rows with more confidences than the stated one: which ranks best, and which is calibrated best.

All are scored on the same rows, those in which every one of them can be read, under the same bootstrap draws.
Those of several samples a row are also set beside the response, on all rows that have samples.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from emocaliber.metrics.counts import FloatArray, IntArray, mean
from emocaliber.metrics.intervals import (
    Interval,
    Resampled,
    difference,
    interval,
    mean_interval,
    mean_over,
    resample,
)
from emocaliber.metrics.scores import compared_scores
from emocaliber.report.collector import Collector, by_frequency, some_rows
from emocaliber.report.tables import BySet, TaskSet, by_kind, task_sets
from emocaliber.scoring import ScoredRow

COMPARED = ("acc", "ece", "smooth_ece", "brier", "auroc", "augrc")
"""The scores of each, by their names in `metrics.scores`; each is a fraction."""

WITHIN_TASKS = "auroc_within_tasks"
"""The mean of the ROC AUC over the tasks in which it is defined for all that are compared."""

RANKING, CALIBRATION = WITHIN_TASKS, "smooth_ece"
"""What decides which confidence ranks best, and which is calibrated best."""

RESPONSE = "response"
SAMPLE_CONFIDENCES = (RESPONSE, AGREEMENT, MEAN_STATED)
"""`response`: its answer, with the confidence that it states. The other two: the majority's answer, with the
share of the samples that name it, and with the mean confidence that these state.
"""

_LEAST_SHARE = 0.5


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


@dataclass(frozen=True, kw_only=True)
class ConfidencesOfRows:
    """The scores of the same `n` rows by confidence."""

    name: str
    n: int
    confidences: dict[str, ConfidenceScores]


@dataclass(frozen=True, kw_only=True)
class ComparedRows(ConfidencesOfRows):
    """Rows that have all confidences; the best in ranking and in calibration, None if undefined."""

    ranks_best: Best | None
    calibrated_best: Best | None


@dataclass(frozen=True)
class ConfidenceReport:
    """`n_rows` rows hold a confidence beyond the stated one; of these, all that are compared, `n_compared`.

    `occurrences`: by name, of `n_rows`. `compared`: what is reported of the rows that have all, None where
    none has.
    """

    n_rows: int
    n_compared: int
    n_draws: int
    occurrences: dict[str, Occurrence]
    by_set: BySet[ComparedRows] | None

    @property
    def compared(self) -> tuple[str, ...]:
        """The names of those that are compared, in the order of `CONFIDENCES`."""
        return tuple(name for name, found in self.occurrences.items() if found.is_compared)


@dataclass(frozen=True, kw_only=True)
class SampledRows(ConfidencesOfRows):
    """Rows with `fewest_samples` to `most_samples` each; scores in [0, 1], two of them with `intervals`.

    `n_tied`: rows whose majority was decided by confidence or order. `acc_mean_of_samples`: the mean over
    rows of the share of their samples that are right. `acc_sd_between_samples`: the standard deviation of the
    accuracies of the first, second, ... samples (with k - 1), None where not every row has as many.
    `agreement`: the mean share of the samples that name the majority, 0 where none has a label.
    """

    fewest_samples: int
    most_samples: int
    n_tied: int
    n_without_majority: int
    acc_mean_of_samples: float | None
    acc_sd_between_samples: float | None
    agreement: float | None
    intervals: dict[str, Interval | None]


@dataclass(frozen=True, kw_only=True)
class SampleReport(BySet[SampledRows]):
    """What is reported about the rows with at least two samples."""

    n_images: int


class ConfidenceCollector:
    """Takes rows in one at a time; keeps about a kilobyte of each with further confidences or samples."""

    def __init__(self) -> None:
        self._answers = {name: Collector() for name in (RESPONSE, *CONFIDENCES)}
        # A number a row: whether it holds more than the stated confidence and samples; of its k samples.
        self._columns = {name: array("i") for name in ("is_beyond", "k", "n_right", "n_agreeing", "is_tied")}
        # By task, how often its first, second, ... samples are right.
        self._right_of_place: dict[str, list[int]] = {}
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in CONFIDENCES}
        self._tokens: dict[str, list[int]] = {}

    def add(self, record: Mapping[str, Any], row: ScoredRow) -> None:
        """Take in a row if it holds more than a stated confidence; `row`: the record, scored.

        Raises RecordError for samples that are not texts.
        """
        samples = read_samples(record, row)
        is_beyond = row.status != "failed" and is_beyond_stated(record)
        if samples is None and not is_beyond:
            return
        answers = {RESPONSE: (row.label, row.confidence)}
        if is_beyond:
            found = read_confidences(record, row)
            answers |= {name: (one.label, one.value) for name, one in found.items()}
            for name, reasons in self._reasons.items():
                if name not in found or found[name].value is None:
                    reasons[(found[name].reason if name in found else None) or "missing"] += 1
            self._count_tokens(record.get("confidence_tokens"))
        counts = {"is_beyond": int(is_beyond)}
        if samples is not None:
            voted = majority(samples, row.candidates)
            answers[AGREEMENT] = (voted.label, voted.agreement)
            answers[MEAN_STATED] = (voted.label, voted.mean_confidence)
            right = [sample.label == row.truth for sample in samples]
            counts |= {"k": len(right), "n_right": sum(right), "n_agreeing": voted.n}
            counts["is_tied"] = int(voted.is_tie)
            places = self._right_of_place.setdefault(row.task, [])
            places.extend([0] * (len(right) - len(places)))
            for place, is_right in enumerate(right):
                places[place] += is_right
        for column, values in self._columns.items():
            values.append(counts.get(column, 0))
        for name, collector in self._answers.items():
            collector.add(_as_row(row, *answers.get(name, (None, None))))

    def _count_tokens(self, tokens: Any) -> None:
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
        has_all = np.array(self._columns["is_beyond"]) > 0
        for name in names:
            has_all &= self._answers[name].rows().level >= 0
        by_set: BySet[ComparedRows] | None = None
        if has_all.any():
            compared = self._compare(names, has_all, n_draws, seed)
            by_set = BySet(**by_kind({one: _compared_rows(one, compared) for one in compared.scored}))
        return ConfidenceReport(
            sum(self._columns["is_beyond"]), int(has_all.sum()), n_draws, occurrences, by_set
        )

    def _occurrences(self) -> dict[str, Occurrence]:
        found = {}
        n_rows = sum(self._columns["is_beyond"])
        for name, reasons in self._reasons.items():
            n = n_rows - reasons.total()
            if n > 0 or set(reasons) - {"missing"}:
                total, told = self._tokens.get(name, (0, 0))
                found[name] = Occurrence(
                    n,
                    by_frequency(reasons),
                    total / told if told else None,
                    n > 0 and n >= _LEAST_SHARE * n_rows,
                )
        return found

    def sample_report(self, n_draws: int, seed: int) -> SampleReport | None:
        """Give the numbers of the rows with samples; None without such rows."""
        has_samples = np.array(self._columns["k"]) > 0
        if not has_samples.any():
            return None
        compared = self._compare(SAMPLE_CONFIDENCES, has_samples, n_draws, seed)
        rows = {one: self._sampled_rows(one, compared, with_intervals=n_draws > 0) for one in compared.scored}
        return SampleReport(n_images=compared.n_images, **by_kind(rows))

    def _sampled_rows(self, one: TaskSet, compared: _Compared, *, with_intervals: bool) -> SampledRows:
        places = compared.places[one]
        counts = {name: np.array(column)[places] for name, column in self._columns.items()}
        k, image = counts["k"], compared.image[places]
        shares = {"acc_mean_of_samples": counts["n_right"] / k, "agreement": counts["n_agreeing"] / k}
        fewest, most = int(k.min()), int(k.max())
        right_of_place = zip(*(self._right_of_place[task] for task in one.tasks), strict=False)
        return SampledRows(
            name=one.name,
            n=len(places),
            confidences=_confidence_scores(compared.scored[one], COMPARED),
            fewest_samples=fewest,
            most_samples=most,
            n_tied=int(counts["is_tied"].sum()),
            n_without_majority=int((counts["n_agreeing"] == 0).sum()),
            acc_sd_between_samples=stdev(map(sum, right_of_place)) / len(places) if fewest == most else None,
            **{name: mean(share.tolist()) for name, share in shares.items()},
            intervals={
                name: _interval_of_shares(share, image) if with_intervals else None
                for name, share in shares.items()
            },
        )

    def _compare(
        self, names: Sequence[str], is_taken: NDArray[np.bool_], n_draws: int, seed: int
    ) -> _Compared:
        """Score some of the confidences on the rows that are true, [n], at least one.

        Images are drawn by what their rows say in all of them, so that all see the same draws.
        """
        taken = np.flatnonzero(is_taken)
        first = self._answers[names[0]]
        rows = {name: some_rows(self._answers[name].rows(), taken) for name in names}
        task = rows[names[0]].task
        sets = task_sets([first.tasks[place] for place in np.unique(task)], first.groups)
        members = {one: [first.tasks.index(name) for name in one.tasks] for one in sets}
        resampling = resample(rows, members, n_draws, seed, compared_scores)
        return _Compared(
            {one: {name: resampling.scored[name, one] for name in names} for one in sets},
            {one: taken[np.isin(task, members[one])] for one in sets},
            first.rows().image,
            resampling.exact.n_images,
        )


@dataclass(frozen=True)
class _Compared:
    """The same rows with several confidences: `scored` by set and name, `places` of the rows of each set."""

    scored: dict[TaskSet, dict[str, Resampled]]
    places: dict[TaskSet, IntArray]
    image: IntArray
    n_images: int


def _compared_rows(one: TaskSet, compared: _Compared) -> ComparedRows:
    scored = _with_task_mean(compared, one)
    return ComparedRows(
        name=one.name,
        n=len(compared.places[one]),
        confidences=_confidence_scores(scored, (*COMPARED, WITHIN_TASKS)),
        ranks_best=_best(scored, RANKING, max),
        calibrated_best=_best(scored, CALIBRATION, min),
    )


def _confidence_scores(scored: Mapping[str, Resampled], scores: Sequence[str]) -> dict[str, ConfidenceScores]:
    """These scores of each confidence, and how they differ from those of the first."""
    first = next(iter(scored.values()))
    found = {}
    for name, one in scored.items():
        differences = {score: difference(first, one, score) for score in scores}
        found[name] = ConfidenceScores(
            n=round(one.value("n_stated") or 0.0),
            scores={score: one.value(score) for score in scores},
            intervals={score: one.interval(score) for score in scores},
            differences={score: less for score, (less, _) in differences.items()},
            difference_intervals={score: interval(*less) for score, less in differences.items()},
        )
    return found


def _with_task_mean(compared: _Compared, one: TaskSet) -> dict[str, Resampled]:
    """The scores of a set by name, with the mean of the ROC AUC over its tasks as one more of them."""
    of_task = [compared.scored[TaskSet("task", task, (task,))] for task in one.tasks]
    defined = [some for some in of_task if not any(np.isnan(part.point["auroc"]) for part in some.values())]
    found = {}
    for name, scored in compared.scored[one].items():
        within = mean_over([some[name] for some in defined or of_task[:1]])
        parts = (
            {**values, WITHIN_TASKS: means["auroc"] if defined else np.full_like(means["auroc"], np.nan)}
            for values, means in (
                (scored.point, within.point),
                (scored.draws, within.draws),
                (scored.drawn_from, within.drawn_from),
            )
        )
        found[name] = Resampled(*parts)
    return found


def _best(scored: Mapping[str, Resampled], score: str, choose: Callable[..., str]) -> Best | None:
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


def _interval_of_shares(values: FloatArray, image: IntArray) -> Interval | None:
    """The interval of a mean of shares, cut to [0, 1]."""
    found = mean_interval(values, np.ones(len(values)), image)
    return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))
