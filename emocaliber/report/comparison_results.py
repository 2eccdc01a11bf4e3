"""The results of comparing runs: what is reported of each set of rows, and of each run against the first."""

from __future__ import annotations

from dataclasses import dataclass

from emocaliber.metrics.intervals import Interval
from emocaliber.report.alignment import RunAccount

COMPARED = ("acc", "f1", "ece", "smooth_ece", "brier", "auroc", "augrc")
"""The scores that are compared, by their names in `SCORES`; each is a fraction."""

HIGHER_IS_BETTER = frozenset(("acc", "f1", "auroc"))

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class RowSet:
    """Rows that are scored together. `kind`: `task`, `group` or `overall`; `tasks`: those of its `n` rows."""

    kind: str
    name: str
    tasks: tuple[str, ...]
    n: int


@dataclass(frozen=True)
class Difference:
    """A score of a run less that of the first; None where it is undefined in one of the two.

    `interval`: 95 %, percentiles of the paired differences of the draws, for distances such as the ECE
    reflected at `value` (`BIASED_UPWARD`). `p`: two-sided, from the same draws; `p_holm`: corrected over all
    tests of the pair. None too without draws.
    """

    value: float | None
    interval: Interval | None
    p: float | None
    p_holm: float | None = None

    @property
    def is_significant(self) -> bool:
        """Is the corrected p-value below 0.05."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class McNemar:
    """Rows that only the first run, or only the other, has right, and the exact p-value of 1 : 1."""

    only_first: int
    only_other: int
    p: float


@dataclass(frozen=True)
class Pair:
    """A run against the first. `n_tests`: how many p-values Holm's correction is over.

    Sets of the same tasks hold the same rows, so their tests count once.
    """

    run: RunAccount
    differences: dict[RowSet, dict[str, Difference]]
    mcnemar: dict[RowSet, McNemar]
    n_tests: int

    @property
    def n_significant(self) -> int:
        """Tests whose corrected p-value is below 0.05."""
        return len(
            {
                (one.tasks, score)
                for one, scores in self.differences.items()
                for score, difference in scores.items()
                if difference.is_significant
            }
        )


@dataclass(frozen=True)
class Comparison:
    """Everything that is reported about two or more runs; sets of rows in the order of the tables.

    `values`: the scores of each run on the rows of a set; `task_means`: for a group or Overall the plain mean
    over its tasks in which a score is defined. Both hold one dictionary a run, in the order of `runs`.
    """

    runs: tuple[RunAccount, ...]
    n_images: int
    n_draws: int
    seed: int
    sets: tuple[RowSet, ...]
    values: dict[RowSet, tuple[dict[str, float | None], ...]]
    task_means: dict[RowSet, tuple[dict[str, float | None], ...]]
    pairs: tuple[Pair, ...]

    @property
    def n_rows(self) -> int:
        """Rows of each run."""
        return self.sets[-1].n

    @property
    def pooled(self) -> tuple[RowSet, ...]:
        """The groups, then everything together."""
        return tuple(one for one in self.sets if one.kind != "task")


def draws_needed(n_tests: int) -> int:
    """The fewest draws with which Holm's correction over that many tests can come out below 0.05."""
    # The least p-value of D draws is 2 / (1 + D); Holm multiplies the least one by the number of tests.
    return round(2 * n_tests / SIGNIFICANT)
