"""Rows with several sampled answers: does their majority answer better, and which confidence is honest.

Three answers with a confidence are compared on the same rows, under the same bootstrap draws: the response
with the confidence that it states, and the majority of the samples with two confidences of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

from emocaliber.metrics.counts import mean
from emocaliber.metrics.intervals import Interval, mean_interval
from emocaliber.report.compared import (
    Compared,
    ComparedAnswers,
    ConfidenceScores,
    SetKey,
    confidence_scores,
)
from emocaliber.report.results import OVERALL
from emocaliber.samples import majority, read_samples
from emocaliber.scoring import ScoredRow

RESPONSE, AGREEMENT, MEAN_STATED = "response", "agreement", "mean_stated"
CONFIDENCES = (RESPONSE, AGREEMENT, MEAN_STATED)
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
        self._answers = ComparedAnswers(CONFIDENCES)
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
        compared = self._answers.compare(CONFIDENCES, n_draws, seed)
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
