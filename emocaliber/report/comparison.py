"""Runs over the same rows compared: paired differences, how sure they are, and what each run scored.

Every draw of the bootstrap takes the same images for all runs, so that what makes an image hard for all of
them cancels in the differences (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13).
"""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from emocaliber.metrics.counts import IntArray
from emocaliber.metrics.intervals import (
    Interval,
    Resampled,
    difference,
    holm,
    interval,
    mean_over,
    p_value,
    resample,
)
from emocaliber.metrics.rows import Rows
from emocaliber.metrics.scores import compared_scores
from emocaliber.report.collector import Account, Collector, some_rows
from emocaliber.report.tables import TaskSet, task_sets
from emocaliber.scoring import ScoredRow

COMPARED = ("acc", "f1", "ece", "smooth_ece", "brier", "auroc", "augrc")
"""The scores that are compared, by their names in `SCORES`; each is a fraction."""

HIGHER_IS_BETTER = frozenset(("acc", "f1", "auroc"))

SIGNIFICANT = 0.05

N_DRAWS = 5000
"""Enough that Holm's correction over 90 tests can still come out below 0.05."""


@dataclass(frozen=True)
class RunAccount:
    """A run by name: n = answered + unparsed + failed rows, `n_with_confidence` state a confidence."""

    name: str
    answered: int
    unparsed: int
    failed: int
    n_with_confidence: int


@dataclass(frozen=True)
class Difference:
    """A score of a run less that of the first; None where it is undefined in one of the two.

    `interval`: 95 %, percentiles of the paired differences of the draws, for distances such as the ECE
    reflected at `difference` (`BIASED_UPWARD`). `p`: two-sided, from the same draws; `p_holm`: corrected over
    all tests of the pair. None too without draws.
    """

    difference: float | None
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

    only_first_right: int
    only_other_right: int
    p: float


@dataclass(frozen=True)
class Pair:
    """A run against the first. `n_tests`: how many p-values Holm's correction is over.

    Sets of the same tasks hold the same rows, so their tests count once.
    """

    run: RunAccount
    differences: dict[TaskSet, dict[str, Difference]]
    mcnemar: dict[TaskSet, McNemar]
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

    `n_of`: how many rows a set has. `values`: the scores of each run on them; `task_means`: for a group or
    Overall the plain mean over its tasks in which a score is defined; both hold one dictionary a run, in the
    order of `runs`.
    """

    runs: tuple[RunAccount, ...]
    n_images: int
    n_draws: int
    seed: int
    sets: tuple[TaskSet, ...]
    n_of: dict[TaskSet, int]
    values: dict[TaskSet, tuple[dict[str, float | None], ...]]
    task_means: dict[TaskSet, tuple[dict[str, float | None], ...]]
    pairs: tuple[Pair, ...]

    @property
    def n_rows(self) -> int:
        """Rows of each run."""
        return self.n_of[self.sets[-1]]

    @property
    def pooled(self) -> tuple[TaskSet, ...]:
        """The groups, then everything together."""
        return tuple(one for one in self.sets if one.kind != "task")


def draws_needed(n_tests: int) -> int:
    """The fewest draws with which Holm's correction over that many tests can come out below 0.05."""
    # The least p-value of D draws is 2 / (1 + D); Holm multiplies the least one by the number of tests.
    return round(2 * n_tests / SIGNIFICANT)


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80
_shown.maxtuple = 12

_DIFFERENT_DATA = (
    "compare finished runs over one data file (rows without an id are known by their question and image, "
    "so that the question has to be the same)"
)


class MismatchError(ValueError):
    """The runs do not hold the same rows. The message is one line: what differs, what to do."""


@dataclass(frozen=True)
class _Run:
    """`place` [n]: for each row, in the order read, its place in the first run."""

    account: RunAccount
    rows: Rows
    place: IntArray


class Alignment:
    """Takes runs in one after the other, each row once; keeps arrays, and one text of each id."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._questions: dict[tuple[str, str, tuple[str, ...]], int] = {}
        self._asked = array("i")
        self._runs: list[_Run] = []
        self.tasks: list[str] = []
        self.groups: dict[str, str | None] = {}

    def add_run(self, name: str, rows: Iterable[ScoredRow]) -> None:
        """Take in a run, whose ids are unique.

        Raises:
            MismatchError: it holds other ids than the first run, or an id with another task, true label or
            candidates.
        """
        collector = Collector()
        if self._runs:
            place = self._places_of(name, rows, collector)
        else:
            for row in rows:
                self._place[row.id] = len(self._place)
                self._asked.append(self._question(row))
                collector.add(row)
            place = np.arange(len(self._place))
            self.tasks, self.groups = collector.tasks, collector.groups
        account = reduce(add, collector.accounts.values(), Account())
        answered, unparsed, failed = (account.status[one] for one in ("answered", "unparsed", "failed"))
        n_with_confidence = account.status.total() - account.no_confidence_reasons.total()
        counts = RunAccount(name, answered, unparsed, failed, n_with_confidence)
        self._runs.append(_Run(counts, collector.rows(), place))

    @property
    def accounts(self) -> list[RunAccount]:
        """The runs so far."""
        return [run.account for run in self._runs]

    def aligned(self) -> list[Rows]:
        """The rows of every run in the order of their ids, so that no order of a file matters.

        The image of a row is the place of the first row with that image, the same in every run.

        Raises:
            MismatchError: rows that share an image in one run do not in another.
        """
        ids = sorted(self._place)
        by_id = np.array([self._place[identity] for identity in ids], dtype=np.int64)
        runs: list[Rows] = []
        for run in self._runs:
            # Where the row of each place was read.
            read_at = np.empty(len(ids), dtype=np.int64)
            read_at[run.place] = np.arange(len(ids))
            rows = some_rows(run.rows, read_at[by_id])
            _, first_of, image = np.unique(rows.image, return_index=True, return_inverse=True)
            rows = replace(rows, image=first_of[image].astype(np.int64))
            if runs and (differing := np.flatnonzero(rows.image != runs[0].image)).size:
                first, name = self._runs[0].account.name, run.account.name
                raise MismatchError(
                    f"id {_shown.repr(ids[differing[0]])} shares its image with other rows in {first} than "
                    f"in {name}; compare runs over the same images"
                )
            runs.append(rows)
        return runs

    def _question(self, row: ScoredRow) -> int:
        asked = (row.task, row.truth, row.candidates)
        return self._questions.setdefault(asked, len(self._questions))

    def _places_of(self, name: str, rows: Iterable[ScoredRow], collector: Collector) -> IntArray:
        place = array("q")
        only_here: list[str] = []
        differing: dict[str, int] = {}
        seen = np.zeros(len(self._place), dtype=np.bool_)
        for row in rows:
            at = self._place.get(row.id)
            if at is None:
                only_here.append(row.id)
                continue
            seen[at] = True
            question = self._question(row)
            if question != self._asked[at]:
                differing[row.id] = question
            place.append(at)
            collector.add(row)
        first = self._runs[0].account.name
        if only_here or not seen.all():
            only_first = [identity for identity, at in self._place.items() if not seen[at]]
            raise MismatchError(
                f"{first} and {name} do not hold the same rows: {_counted(only_first)} only in {first}, "
                f"{_counted(only_here)} only in {name}; {_DIFFERENT_DATA}"
            )
        if differing:
            raise MismatchError(self._difference(first, name, differing))
        return np.array(place, dtype=np.int64)

    def _difference(self, first: str, name: str, differing: Mapping[str, int]) -> str:
        identity, questions = min(differing), list(self._questions)
        before = questions[self._asked[self._place[identity]]]
        after = questions[differing[identity]]
        what, old, new = next(
            (what, old, new)
            for what, old, new in zip(("task", "true label", "candidates"), before, after, strict=True)
            if old != new
        )
        others = f" ({len(differing)} such ids)" if len(differing) > 1 else ""
        return (
            f"id {_shown.repr(identity)} has the {what} {_shown.repr(old)} in {first} and "
            f"{_shown.repr(new)} in {name}{others}; compare runs over one data file"
        )


def _counted(ids: Sequence[str]) -> str:
    """How many ids, and the first of them in their order, so that no order of a file matters."""
    count = f"{len(ids)} id{'' if len(ids) == 1 else 's'}"
    return f"{count} (first {_shown.repr(min(ids))})" if ids else count


def compare(
    runs: Iterable[tuple[str, Iterable[ScoredRow]]], n_draws: int = N_DRAWS, seed: int = 0
) -> Comparison:
    """Compare every run with the first. Neither the order of rows nor that of the other runs matters.

    Args:
        runs: (name, scored rows) of each, read once, one after the other; names are unique.
        n_draws: bootstrap draws over images; 0 gives differences without intervals and p-values.
        seed: of the draws.
    Raises:
        MismatchError: the runs do not hold the same rows.
    """
    alignment = Alignment()
    for name, rows in runs:
        alignment.add_run(name, rows)
    arrays = alignment.aligned()
    sets = task_sets(alignment.tasks, alignment.groups)
    places = {one: [alignment.tasks.index(task) for task in one.tasks] for one in sets}
    resampling = resample(dict(enumerate(arrays)), places, n_draws, seed, compared_scores, _joint_cells)
    resampled = resampling.scored
    runs_range = range(len(arrays))
    of_task = {one.name: one for one in sets if one.kind == "task"}
    means = {
        one: [mean_over([resampled[run, of_task[task]] for task in one.tasks]) for run in runs_range]
        for one in sets
        if one.kind != "task"
    }
    return Comparison(
        runs=tuple(alignment.accounts),
        n_images=resampling.exact.n_images,
        n_draws=n_draws,
        seed=seed,
        sets=sets,
        n_of={one: int(np.isin(arrays[0].task, places[one]).sum()) for one in sets},
        values={one: tuple(_values(resampled[run, one]) for run in runs_range) for one in sets},
        task_means={one: tuple(map(_values, parts)) for one, parts in means.items()},
        pairs=tuple(
            _pair(
                alignment.accounts[run],
                {one: _differences(resampled[0, one], resampled[run, one]) for one in sets},
                {one: _mcnemar(arrays[0], arrays[run], places[one]) for one in sets},
            )
            for run in runs_range[1:]
        ),
    )


def _joint_cells(runs: Sequence[Rows]) -> IntArray:
    """One number a row for what it says in all runs."""
    said = np.stack([rows.cell for rows in runs], axis=1)
    _, first, kind = np.unique(said, axis=0, return_index=True, return_inverse=True)
    # By where each occurs first, the rows being in the order of their ids: so the draws do not depend on the
    # order of the runs.
    return first[kind.ravel()]


def _values(resampled: Resampled) -> dict[str, float | None]:
    return {score: resampled.value(score) for score in COMPARED}


def _differences(first: Resampled, other: Resampled) -> dict[str, Difference]:
    """Every score of the other less that of the first."""
    differences = {}
    for score in COMPARED:
        value, draws = difference(first, other, score)
        found = None if value is None else p_value(draws)
        differences[score] = Difference(value, interval(value, draws), found)
    return differences


def _pair(
    run: RunAccount, differences: Mapping[TaskSet, dict[str, Difference]], mcnemar: dict[TaskSet, McNemar]
) -> Pair:
    # A group of a single task is the same rows again: its tests are no further ones.
    p_values = {
        (one.tasks, score): found.p
        for one, scores in differences.items()
        for score, found in scores.items()
        if found.p is not None
    }
    p_holm = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    corrected = {
        one: {score: replace(found, p_holm=p_holm.get((one.tasks, score))) for score, found in scores.items()}
        for one, scores in differences.items()
    }
    return Pair(run, corrected, mcnemar, len(p_values))


def _mcnemar(first: Rows, other: Rows, tasks: Sequence[int]) -> McNemar:
    """McNemar's exact test (1947) that either run is as often the only right one, rows independent."""
    from scipy.stats import binomtest

    inside = np.isin(first.task, tasks)
    right = [(rows.label == rows.truth)[inside] for rows in (first, other)]
    only_first = int((right[0] & ~right[1]).sum())
    only_other = int((right[1] & ~right[0]).sum())
    n = only_first + only_other
    p = float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0
    return McNemar(only_first, only_other, min(1.0, p))
