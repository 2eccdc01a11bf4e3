"""Runs over the same rows, brought into one order, or told apart from runs over other rows."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from emocaliber.metrics.counts import IntArray
from emocaliber.metrics.rows import Rows
from emocaliber.report.collector import Account, Collector
from emocaliber.scoring import ScoredRow

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
class RunAccount:
    """A run by name: n = answered + unparsed + failed rows, `n_with_confidence` state a confidence."""

    name: str
    answered: int
    unparsed: int
    failed: int
    n_with_confidence: int


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
        self._runs.append(
            _Run(
                RunAccount(
                    name,
                    account.status["answered"],
                    account.status["unparsed"],
                    account.status["failed"],
                    account.status.total() - account.no_confidence_reasons.total(),
                ),
                collector.rows(),
                place,
            )
        )

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
            rows = _taken(run.rows, read_at[by_id])
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
        only_here: _First = _First()
        differing: _First = _First()
        seen = np.zeros(len(self._place), dtype=np.bool_)
        for row in rows:
            at = self._place.get(row.id)
            if at is None:
                only_here.add(row.id)
                continue
            seen[at] = True
            question = self._question(row)
            if question != self._asked[at]:
                differing.add(row.id, question)
            place.append(at)
            collector.add(row)
        first = self._runs[0].account.name
        if only_here.n or not seen.all():
            only_first = _First()
            for identity, at in self._place.items():
                if not seen[at]:
                    only_first.add(identity)
            raise MismatchError(
                f"{first} and {name} do not hold the same rows: {only_first} only in {first}, "
                f"{only_here} only in {name}; {_DIFFERENT_DATA}"
            )
        if differing.n:
            raise MismatchError(self._difference(first, name, differing))
        return np.array(place, dtype=np.int64)

    def _difference(self, first: str, name: str, differing: _First) -> str:
        questions = list(self._questions)
        before = questions[self._asked[self._place[differing.identity]]]
        after = questions[differing.question]
        what, old, new = next(
            (what, old, new)
            for what, old, new in zip(("task", "true label", "candidates"), before, after, strict=True)
            if old != new
        )
        others = f" ({differing.n} such ids)" if differing.n > 1 else ""
        return (
            f"id {_shown.repr(differing.identity)} has the {what} {_shown.repr(old)} in {first} and "
            f"{_shown.repr(new)} in {name}{others}; compare runs over one data file"
        )


class _First:
    """How many ids, and the first of them in their order, so that no order of a file matters."""

    def __init__(self) -> None:
        self.n = 0
        self.identity = ""
        self.question = -1

    def add(self, identity: str, question: int = -1) -> None:
        self.n += 1
        if self.n == 1 or identity < self.identity:
            self.identity, self.question = identity, question

    def __str__(self) -> str:
        count = f"{self.n} id{'' if self.n == 1 else 's'}"
        return f"{count} (first {_shown.repr(self.identity)})" if self.n else count


def _taken(rows: Rows, order: IntArray) -> Rows:
    _, first, image = np.unique(rows.image[order], return_index=True, return_inverse=True)
    return replace(
        rows,
        task=rows.task[order],
        truth=rows.truth[order],
        label=rows.label[order],
        level=rows.level[order],
        image=first[image].astype(np.int64),
    )
