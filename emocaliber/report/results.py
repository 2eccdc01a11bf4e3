"""The results of an evaluation: what is reported of a task, of a group, and of everything together."""

from __future__ import annotations

from dataclasses import dataclass

from emocaliber.metrics.calibration import ByChance, ReliabilityBin
from emocaliber.metrics.intervals import Interval
from emocaliber.metrics.selective import CurvePoint
from emocaliber.report.tables import Scores

OVERALL = "Overall"


@dataclass(frozen=True)
class ThresholdRow:
    """The rows kept at one threshold; scores in [0, 1] with 95 % intervals, None where nothing is kept.

    `scores` and `intervals` by name: `acc`, `f1`, `coverage`.
    """

    threshold: str
    n: int
    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Forecast:
    """Answer and confidence as a forecast of the label distribution, see `metrics.soft`; means over rows.

    `expected_acc`, in [0, 1]: the chance that the answer is right, 0 for a row without one, over all rows of
    the `Truth`. `soft_ece`, in [0, 1]: the ECE against that chance, over its `n_with_confidence` rows.
    `cross_entropy`, `kl` (nats) and `brier` (in [0, 2]): over the `n` rows with an answer and a confidence.
    `intervals` by name; the soft ECE is no mean and has none.
    """

    n: int
    expected_acc: float | None
    soft_ece: float | None
    cross_entropy: float | None
    kl: float | None
    brier: float | None
    intervals: dict[str, Interval | None]


@dataclass(frozen=True)
class Truth:
    """Against the stored label distribution of each image, over the `n` rows that have one; all in [0, 1].

    `gap` is the mean |c - p(answer | image)| over the `n_with_confidence` of them that state a confidence, an
    unparsed answer having chance 0 to be right. `intervals` by name: `acc`, `bayes_acc`, `acc_over_bayes`,
    `gap`.
    """

    n: int
    n_with_confidence: int
    acc: float | None
    bayes_acc: float | None
    gap: float | None
    intervals: dict[str, Interval | None]
    forecast: Forecast

    @property
    def acc_over_bayes(self) -> float | None:
        """The accuracy as a share of the best that can be expected."""
        return self.acc / self.bayes_acc if self.acc is not None and self.bayes_acc else None


@dataclass(frozen=True, kw_only=True)
class Summary(Scores):
    """The scores of a set of rows with the account of where every row went.

    n = answered + unparsed + failed. Accuracy, F1 and the selective scores are over all n rows, the
    calibration scores over the `n_with_confidence` rows that state a confidence;
    `n_unparsed_with_confidence` of these have no answer and count as wrong. `scores` holds every one of
    `SCORES`, `intervals` its 95 % interval. `by_chance`: the ECE that honest confidences would show. `curve`:
    at most 1,000 points (`Rows.coarsened`). `confusion`: rows by (true label, answer or None).
    """

    answered: int
    unparsed: int
    failed: int
    unparsed_reasons: dict[str, int]
    failed_reasons: dict[str, int]
    flags: dict[str, int]
    n_with_confidence: int
    n_unparsed_with_confidence: int
    no_confidence_reasons: dict[str, int]
    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]
    by_chance: ByChance | None
    thresholds: tuple[ThresholdRow, ...]
    bins: tuple[ReliabilityBin, ...]
    curve: tuple[CurvePoint, ...]
    confusion: dict[tuple[str, str | None], int]
    truth: Truth | None


@dataclass(frozen=True)
class TaskMean:
    """The plain mean of each score over the `n_tasks` tasks in which it is defined, with 95 % intervals.

    `pooling_gain`: AUROC of all rows together less the mean AUROC within the tasks, and its interval.
    """

    scores: dict[str, float | None]
    intervals: dict[str, Interval | None]
    n_tasks: dict[str, int]
    pooling_gain: float | None
    pooling_gain_interval: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported about one set of predictions; tasks and groups in the tables' order."""

    protocol: str
    n_images: int
    n_draws: int
    seed: int
    tasks: tuple[Summary, ...]
    groups: tuple[Summary, ...]
    overall: Summary
    tasks_of_group: dict[str, tuple[str, ...]]
    task_means: dict[str, TaskMean]

    @property
    def pooled(self) -> tuple[Summary, ...]:
        """The groups, then everything together."""
        return (*self.groups, self.overall)
