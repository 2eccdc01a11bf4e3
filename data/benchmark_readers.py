"""The benchmarks of build_benchmark.py: what each is, and how a row of its table is read."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.taxonomy import MIKELS_8

RowReader = Callable[[Sequence[str]], dict[str, Any]]
"""Turns the cells of a row into `image`, as the table names it, and fields of the record. Raises BadRow."""


class BadRow(Exception):
    """A row that cannot be used; its arguments are the reason to count by and a message."""


@dataclass(frozen=True)
class Benchmark:
    """A data set, its published rows, its table and labels unless set otherwise, and how a row is read."""

    dataset: str
    n_rows: int
    table: str
    labels: tuple[str, ...]
    reader: Callable[[Sequence[str], argparse.Namespace], RowReader]


def emotion6(header: Sequence[str], args: argparse.Namespace) -> RowReader:
    """Read rows by the places of cells. Raises RecordError if the header names labels in another order."""
    words = re.findall(r"\w+", " ".join(header).casefold())
    named = [word for word in words if word in map(str.casefold, args.labels.values())]
    if named and named != [name.casefold() for name in args.labels.values()]:
        raise RecordError(f"{args.table}:1: the header names {' '.join(named)}; give that order as --labels")

    def read(cells: Sequence[str]) -> dict[str, Any]:
        n_cells = 3 + len(args.labels)
        if len(cells) < n_cells or any(cells[n_cells:]):  # lines may end in a separator
            raise BadRow("bad_row", f"{len(cells)} cells, not {n_cells}")
        valence, arousal, *shares = map(number_in, cells[1:n_cells])
        if min(shares) < 0 or max(shares) > 1:
            raise BadRow("bad_number", f"probabilities from {min(shares):g} to {max(shares):g}")
        total = math.fsum(shares)
        if not total or abs(total - 1) > args.sum_tolerance + 1e-9:
            raise BadRow("bad_sum", f"sum {total:.6g}, not 1 within {args.sum_tolerance:g}")
        posterior = {label: share / total for label, share in zip(args.labels, shares, strict=True)}
        return {"image": cells[0], "posterior": posterior, "valence": valence, "arousal": arousal}

    return read


def multiemo(header: Sequence[str], args: argparse.Namespace) -> RowReader:
    """Read rows by the names of columns. Raises RecordError for one that is not there."""
    columns = [name.casefold() for name in header]
    for name in (args.image_column, *args.labels.values()):
        if columns.count(name.casefold()) != 1:
            there = f"not one column {name} in {', '.join(header)}"
            raise RecordError(f"{args.table}:1: {there}; set --image-column, --labels")

    def read(cells: Sequence[str]) -> dict[str, Any]:
        if len(cells) != len(header):
            raise BadRow("bad_row", f"{len(cells)} cells, the header has {len(header)}")
        row = dict(zip(columns, cells, strict=True))
        votes = {label: number_in(row[name.casefold()]) for label, name in args.labels.items()}
        for label, count in votes.items():
            if not count.is_integer() or not 0 <= count <= args.raters:
                raise BadRow("bad_number", f"{count:g} votes for {label}, not one of 0 to {args.raters}")
        if not any(votes.values()):
            raise BadRow("no_votes", "nobody names any label")
        counts = {label: int(count) for label, count in votes.items()}
        return {"image": row[args.image_column.casefold()], "votes": counts}

    return read


EMOTION6_7 = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
BENCHMARKS = {
    "emotion6": Benchmark("Emotion6", 1980, "ground_truth.txt", EMOTION6_7, emotion6),
    "multiemo": Benchmark("MultiEmo", 10_344, "votes.csv", MIKELS_8, multiemo),
}


def number_in(cell: str) -> float:
    """Give the finite number in a cell. Raises BadRow."""
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRow("bad_number", f"{cell[:40]!r} is not a number")
    return number
