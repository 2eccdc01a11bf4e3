"""Scored rows as whole numbers, and the counts of any set of tasks under any weighting of the images.

A bootstrap over images draws images, and rows that share one are drawn together. Images whose rows say the
same (task, truth, answer, confidence) are interchangeable, so they are counted as one pattern with a weight:
a draw is then a vector of weights, and the counts that every metric needs are a sparse matrix product of it.
The patterns come in a fixed order, so the order of the rows cannot matter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emocaliber.metrics.counts import N_TENTHS, FloatArray, IntArray, LevelCounts

_MOST_LEVELS = 1000


@dataclass(frozen=True)
class Rows:
    """n rows. `task`, `truth`, `image` [n]: indices; `label`, `level` [n]: indices, -1 for no answer, no
    confidence.

    `confidence`, `tenth` [L]: the confidence of each level, ascending, and its bin of ten (`LevelCounts`).
    `n_labels`: how many labels the indices of `truth` and `label` are among.
    """

    task: IntArray
    truth: IntArray
    label: IntArray
    level: IntArray
    image: IntArray
    confidence: FloatArray
    tenth: IntArray
    n_labels: int

    def __len__(self) -> int:
        return len(self.task)

    @cached_property
    def cell(self) -> IntArray:
        """One number [n] for what a row says; equal exactly for rows that are interchangeable."""
        answered = (self.task * self.n_labels + self.truth) * (self.n_labels + 1) + self.label + 1
        return answered * (len(self.confidence) + 1) + self.level + 1

    def coarsened(self) -> "Rows":
        """The same rows with at most 1,000 confidences: the cost of bootstrap draws grows with their number.

        Confidences within the same thousandth become their mean, so no bin, no mean confidence and no ECE
        changes; other scores change by what a thousandth can change. Fewer confidences are kept as they are.
        """
        if len(self.confidence) <= _MOST_LEVELS:
            return self
        within = np.floor((self.confidence - self.tenth / N_TENTHS) * _MOST_LEVELS).astype(np.int64)
        per_tenth = _MOST_LEVELS // N_TENTHS
        cell = self.tenth * per_tenth + np.clip(within, 0, per_tenth - 1)
        _, place = np.unique(cell, return_inverse=True)
        stated = self.level >= 0
        n_rows = np.bincount(self.level[stated], minlength=len(self.confidence))
        n = np.bincount(place, weights=n_rows)
        mean = np.bincount(place, weights=n_rows * self.confidence) / n
        return replace(
            self,
            level=np.where(stated, place[np.maximum(self.level, 0)], -1),
            confidence=mean,
            tenth=self.tenth[np.unique(place, return_index=True)[1]],
        )


@dataclass(frozen=True)
class GroupCounts:
    """The counts of a set of tasks: per confidence, and per bin of ten and label.

    `support`, `predicted`, `hits` [..., 11, labels], as `weighted_f1` takes them; entry 0 of the bins holds
    the rows without a confidence.
    """

    levels: LevelCounts
    support: FloatArray
    predicted: FloatArray
    hits: FloatArray


@dataclass(frozen=True)
class Patterns:
    """Images by what their rows say. `weight` [P]: how many images; `members` [P, cells]: rows of each kind.

    `row_of_cell` [cells]: for each kind of row the place of one such row.
    """

    weight: IntArray
    members: Any
    row_of_cell: IntArray


def patterns(cell: IntArray, image: IntArray) -> Patterns:
    """Group images by the kinds of their rows.

    Args:
        cell: what each row says, [n].
        image: the image of each row, [n].
    """
    from scipy.sparse import csr_array, vstack

    _, row_of_cell, kind = np.unique(cell, return_index=True, return_inverse=True)
    order = np.lexsort((kind, image))
    kind, image = kind[order], image[order]
    starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]]) if len(image) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(image)])
    weights, blocks = [], []
    for size in np.unique(sizes):
        rows = kind[starts[sizes == size][:, None] + np.arange(size)]
        distinct, weight = np.unique(rows, axis=0, return_counts=True)
        places = np.repeat(np.arange(len(distinct)), size)
        shape = (len(distinct), len(row_of_cell))
        blocks.append(csr_array((np.ones(distinct.size), (places, distinct.ravel())), shape=shape))
        weights.append(weight)
    return Patterns(np.concatenate(weights), vstack(blocks, format="csr"), row_of_cell)


class Group:
    """The rows of some tasks, ready to be counted under any weighting of the patterns."""

    def __init__(self, rows: Rows, found: Patterns, tasks: Sequence[int]) -> None:
        from scipy.sparse import csr_array

        places = found.row_of_cell
        inside = np.flatnonzero(np.isin(rows.task[places], tasks))
        places = places[inside]
        truth, label, level = rows.truth[places], rows.label[places], rows.level[places]
        self._levels = np.unique(level[level >= 0])
        self._labels = np.unique(np.r_[truth, label[label >= 0]])
        self._confidence, self._tenth = rows.confidence[self._levels], rows.tenth[self._levels]
        slot = np.where(level < 0, 0, np.searchsorted(self._levels, level) + 1)
        tenth = np.where(level < 0, 0, rows.tenth[np.maximum(level, 0)] + 1) if len(rows.tenth) else 0 * level
        n_slots, n_labels = len(self._levels) + 1, len(self._labels)
        right, answered = label == truth, label >= 0
        per_label = (N_TENTHS + 1) * n_labels
        first = 2 * n_slots + np.arange(3) * per_label
        of_truth = tenth * n_labels + np.searchsorted(self._labels, truth)
        of_label = tenth * n_labels + np.searchsorted(self._labels, np.maximum(label, 0))
        entries = [
            (inside, slot),
            (inside[right], n_slots + slot[right]),
            (inside, first[0] + of_truth),
            (inside[answered], first[1] + of_label[answered]),
            (inside[right], first[2] + of_label[right]),
        ]
        cells = np.concatenate([cell for cell, _ in entries])
        columns = np.concatenate([column for _, column in entries])
        shape = (found.members.shape[1], 2 * n_slots + 3 * per_label)
        features = csr_array((np.ones(len(cells)), (cells, columns)), shape=shape)
        # Transposed: rows of the result are then contiguous sums over the patterns.
        self._design = (found.members @ features).T.tocsr()

    @property
    def n_counts(self) -> int:
        """Numbers a weighting gives; what a caller sizes its memory by."""
        return int(self._design.shape[0])

    def counts(self, weight: FloatArray) -> GroupCounts:
        """Count under weightings of the patterns, [draws, P]."""
        flat = np.ascontiguousarray((self._design @ weight.T).T)
        n_slots, n_labels = len(self._levels) + 1, len(self._labels)
        n, right = flat[:, :n_slots], flat[:, n_slots : 2 * n_slots]
        by_label = flat[:, 2 * n_slots :].reshape(len(flat), 3, N_TENTHS + 1, n_labels)
        levels = LevelCounts(
            confidence=self._confidence,
            tenth=self._tenth,
            n=n[:, 1:],
            n_correct=right[:, 1:],
            n_missing=n[:, 0],
            n_correct_missing=right[:, 0],
        )
        return GroupCounts(levels, by_label[:, 0], by_label[:, 1], by_label[:, 2])


@dataclass(frozen=True)
class Grouped:
    """Groups of the same images, by (run, set of tasks), and the patterns that they were made of."""

    groups: dict[tuple[Any, Any], Group]
    found: Patterns

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return int(self.found.weight.sum())

    def levels(self, run: Any, tasks: Any) -> LevelCounts:
        """The counts of a group on the data itself, without a leading axis."""
        return self.groups[run, tasks].counts(whole(self.found.weight)).levels.first()


JointCells = Callable[[Sequence[Rows]], IntArray]
"""One number a row for what it says in all runs."""


def joint_cells(runs: Sequence[Rows]) -> IntArray:
    """One number [n] for what a row says in all runs, independent of the order of the rows."""
    if len(runs) == 1:
        return runs[0].cell
    _, kind = np.unique(np.stack([rows.cell for rows in runs], axis=1), axis=0, return_inverse=True)
    return kind.ravel()


def group_runs(
    runs: Mapping[Any, Rows], sets: Mapping[Any, Sequence[int]], joint: JointCells = joint_cells
) -> Grouped:
    """Make every set of tasks of every run a group, over the patterns of the images in all runs.

    Args:
        runs: the same rows and images in the same order, with the answers of each run.
        sets: indices of tasks, by name.
        joint: what makes two rows interchangeable.
    """
    some = list(runs.values())
    found = patterns(joint(some), some[0].image)
    groups = {
        (run, name): Group(rows, found, tasks) for run, rows in runs.items() for name, tasks in sets.items()
    }
    return Grouped(groups, found)


def whole(counts: NDArray[np.int64]) -> FloatArray:
    """The weighting of the data itself, [1, P]."""
    return counts[None, :].astype(np.float64)
