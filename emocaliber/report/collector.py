"""Scored rows, one at a time, into the arrays that the metrics take and the account of where every row went.

Keeps twenty bytes a row, and some sixty more where its label distribution is known, so that a million rows
fit: what a row says is interned, its text is not kept.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import lru_cache
from itertools import count
from math import nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emocaliber.metrics.counts import IntArray, exact_decimal, tenth_of
from emocaliber.metrics.rows import Rows
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import task_sort_key

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Account:
    """Where the rows of one or more tasks went: counts, and counts per reason."""

    REASONS = ("unparsed_reasons", "failed_reasons", "flags", "no_confidence_reasons")

    status: Counter[str] = field(default_factory=Counter)
    unparsed_reasons: Counter[str] = field(default_factory=Counter)
    failed_reasons: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    no_confidence_reasons: Counter[str] = field(default_factory=Counter)
    n_unparsed_with_confidence: int = 0

    def add(self, row: ScoredRow, failure: str) -> None:
        """Count one row; `failure` says why it failed, if it did."""
        self.status[row.status] += 1
        if row.status == "unparsed":
            self.unparsed_reasons[row.label_reason or "unknown"] += 1
            self.n_unparsed_with_confidence += row.confidence is not None
        if row.status == "failed":
            self.failed_reasons[failure] += 1
        self.flags.update(row.flags)
        if row.confidence is None:
            reason = "failed" if row.status == "failed" else row.confidence_reason
            self.no_confidence_reasons[reason or "unknown"] += 1

    def __add__(self, other: Account) -> Account:
        return Account(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def by_frequency(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, ties alphabetically, so that no order of rows matters."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class KnownTruth:
    """The rows of one task whose label distribution p is known, a few numbers each."""

    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in _COLUMNS.items()}
        self._reduced = {name: array("d") for name in ("total", "largest", "entropy", "squares")}
        # Distributions as they come, one after the other, until there are enough to be reduced at once.
        self._waiting = array("d")

    def add(self, row: ScoredRow, posterior: dict[str, float], image: int) -> None:
        """Take one row in."""
        confidence, tenth = _NO_CONFIDENCE if row.confidence is None else _placed(row.confidence)
        chance = 0.0 if row.label is None else posterior.get(row.label, 0.0)
        said = (row.correct, row.label is not None, tenth, len(posterior), image, confidence, chance)
        for column, value in zip(self._columns.values(), said, strict=True):
            column.append(value)
        self._waiting.extend(posterior.values())
        if len(self._waiting) >= _MOST_WAITING:
            self._reduce()

    def columns(self) -> dict[str, NDArray[Any]]:
        """One array [n] a column; p is divided by its sum, which rounding may have moved from 1.

        `right`, `answered`: 1 or 0; `largest`: the largest of p; `chance`: p of the answer, 0 where there is
        none; `confidence` and its bin of ten `tenth`: NaN and -1 where there is none; `n_labels`, `entropy`
        (in nats), `squares` (the sum of p^2): of p; `image`: the image's number.
        """
        self._reduce()
        columns = {name: np.array(column) for name, column in (self._columns | self._reduced).items()}
        columns["chance"] = columns["chance"] / columns.pop("total")
        return columns

    def _reduce(self) -> None:
        if not self._waiting:
            return
        sizes = np.array(self._columns["n_labels"][len(self._reduced["total"]) :])
        starts = np.cumsum(sizes) - sizes
        p = np.array(self._waiting)
        total = np.add.reduceat(p, starts)
        p /= np.repeat(total, sizes)
        reduced = {
            "total": total,
            "largest": np.maximum.reduceat(p, starts),
            "entropy": -np.add.reduceat(p * np.log(np.where(p > 0, p, 1.0)), starts),
            "squares": np.add.reduceat(p**2, starts),
        }
        for name, values in reduced.items():
            self._reduced[name].frombytes(values.tobytes())
        del self._waiting[:]


_COLUMNS = {"right": "b", "answered": "b", "tenth": "b", "n_labels": "i", "image": "q"}
_COLUMNS |= {"confidence": "d", "chance": "d"}
_MOST_WAITING = 50_000
_NO_CONFIDENCE = (nan, -1)


@lru_cache(maxsize=4096)
def _placed(confidence: Decimal) -> tuple[float, int]:
    """A confidence as a float, and its bin of ten."""
    return float(confidence), tenth_of(confidence)


class Collector:
    """Takes scored rows in, gives them out as `Rows` with the tasks in the order of the tables."""

    def __init__(self) -> None:
        # What occurs is numbered as it comes.
        self._tasks: defaultdict[str, int] = defaultdict(count().__next__)
        self._labels: defaultdict[str, int] = defaultdict(count().__next__)
        self._levels: defaultdict[Decimal, int] = defaultdict(count().__next__)
        self._images: defaultdict[Hashable, int] = defaultdict(count().__next__)
        self._columns = {name: array("i") for name in ("task", "truth", "label", "level", "image")}
        self.groups: dict[str, str | None] = {}
        self.accounts: defaultdict[str, Account] = defaultdict(Account)
        self.truths: defaultdict[str, KnownTruth] = defaultdict(KnownTruth)

    def add(self, row: ScoredRow, failure: str = "error") -> None:
        """Take one row in; `failure` says why it failed, if it did."""
        columns = self._columns
        # A row that names no image has one of its own.
        key: Hashable = len(columns["image"]) if row.image_key is None else row.image_key
        image = self._images[key]
        columns["task"].append(self._tasks[row.task])
        columns["truth"].append(self._labels[row.truth])
        columns["label"].append(-1 if row.label is None else self._labels[row.label])
        columns["level"].append(-1 if row.confidence is None else self._levels[row.confidence])
        columns["image"].append(image)
        self.groups.setdefault(row.task, row.group)
        self.accounts[row.task].add(row, failure)
        if row.posterior:
            self.truths[row.task].add(row, row.posterior, image)

    @property
    def tasks(self) -> list[str]:
        """The tasks that occur, in the order of the tables; their places are the indices of `Rows.task`."""
        return sorted(self._tasks, key=task_sort_key)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted; their places are the indices of `Rows.truth` and `Rows.label`."""
        return sorted(self._labels)

    def rows(self) -> Rows:
        """All rows so far, as arrays whose indices do not depend on the order in which the rows came."""
        levels = sorted(self._levels)
        written = [exact_decimal(level) for level in levels]
        return Rows(
            task=self._renumbered("task", self._tasks, self.tasks),
            truth=self._renumbered("truth", self._labels, self.labels),
            label=self._renumbered("label", self._labels, self.labels),
            level=self._renumbered("level", self._levels, levels),
            image=np.array(self._columns["image"], dtype=np.int64),
            confidence=np.array([float(level) for level in written]),
            tenth=np.array([tenth_of(level) for level in written], dtype=np.int64),
            n_labels=len(self._labels),
        )

    def _renumbered(self, column: str, numbers: dict[Key, int], order: list[Key]) -> IntArray:
        # The last place serves the index -1.
        place = np.full(len(numbers) + 1, -1, dtype=np.int64)
        for position, key in enumerate(order):
            place[numbers[key]] = position
        return place[np.array(self._columns[column], dtype=np.int64)]


def some_rows(rows: Rows, places: IntArray) -> Rows:
    """The rows at these places, in their order."""
    columns = ("task", "truth", "label", "level", "image")
    return replace(rows, **{name: getattr(rows, name)[places] for name in columns})
