"""Chooses the images of the raw releases that can be used: readable, one for each content, of one label."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.raw.readers import READERS, RawImage, ReaderSettings
from data.raw.scan import scan, storable
from emocaliber.image_scan import ImageMemory
from emocaliber.jsonl import RecordError, StagedJsonl


class Listing:
    """Lists things of the releases in a file as they come, and counts them by data set and reason.

    The file gets its name when it is closed, unless the build was interrupted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self._rows = StagedJsonl(path)

    def add(self, dataset: str, where: str, reason: str, message: str) -> None:
        """Count and list one thing."""
        self.counts[dataset, reason] += 1
        self._rows.write({"dataset": dataset, "where": where, "reason": reason, "message": message})

    def of(self, dataset: str) -> dict[str, int]:
        """Give the counts of one data set by reason, most frequent first."""
        return {reason: n for (name, reason), n in self.counts.most_common() if name == dataset}

    def text_of(self, dataset: str) -> str:
        """Give those counts in one line."""
        return ", ".join(f"{reason} {n:,}" for reason, n in self.of(dataset).items()) or "nothing"

    def close(self) -> None:
        """Put the list in its place; more than once does no harm."""
        self._rows.finish()

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._rows:
            if kind is None or issubclass(kind, Exception):
                self.close()


@dataclass(frozen=True)
class UseSettings:
    """What can be used. See `one_of_each`; `reading` is for the readers."""

    max_copies: int = 10
    on_conflict: str = "drop"
    reading: ReaderSettings = field(default_factory=ReaderSettings)


def usable_images(
    raw: Mapping[str, Path],
    settings: UseSettings,
    memory: ImageMemory,
    database: sqlite3.Connection,
    workers: int,
    rejected: Listing,
    noted: Listing,
) -> None:
    """Read and scan the releases; list what is left out, and what is unusual about the rest, the `image`s.

    Raises RecordError for a release without an image that can be used.
    """
    for dataset, root in raw.items():
        _read(dataset, root, settings.reading, database, rejected)
    _scan(raw, memory, database, workers)
    for dataset, root in raw.items():
        _list_unreadable(dataset, database, rejected)
        if not one_of_each(dataset, settings, database, rejected, noted):
            raise RecordError(
                f"{root}: no image of {dataset} can be used ({rejected.text_of(dataset)}; listed in "
                f"{rejected.path}); give its folder as it was released, see --help for settings"
            )
    database.commit()


def _read(
    dataset: str, root: Path, settings: ReaderSettings, database: sqlite3.Connection, rejected: Listing
) -> None:
    def images() -> Iterator[tuple[str | bytes | None, ...]]:
        for row in READERS[dataset](root, settings):
            if isinstance(row, RawImage):
                yield dataset, storable(row.path), row.label, row.split, storable(row.where)
            else:
                rejected.add(dataset, row.where, row.reason, row.message)

    database.executemany(
        "INSERT INTO listed (dataset, path, label, split, listed_at)"
        " VALUES (?, CAST(? AS TEXT), ?, ?, CAST(? AS TEXT))",
        images(),
    )
    database.commit()


def _scan(raw: Mapping[str, Path], memory: ImageMemory, database: sqlite3.Connection, workers: int) -> None:
    (n_files,) = database.execute(
        "SELECT count(*) FROM (SELECT DISTINCT dataset, path FROM listed)"
    ).fetchone()
    listed = database.execute("SELECT DISTINCT dataset, path FROM listed ORDER BY dataset, path")
    files = ((f"{dataset}/{path}", raw[dataset] / path) for dataset, path in listed)
    for name, found in scan(files, n_files, memory, workers):
        dataset, _, path = name.partition("/")
        about = (found.reason, storable(found.message), json.dumps(found.notes))
        database.execute(
            "INSERT INTO file VALUES (?, CAST(? AS TEXT), ?, ?, ?, CAST(? AS TEXT), ?)",
            (dataset, storable(path), found.sha256, found.pixels_sha256, *about),
        )
    database.commit()


def _list_unreadable(dataset: str, database: sqlite3.Connection, rejected: Listing) -> None:
    rows = database.execute(
        "SELECT listed_at, reason, message FROM listed JOIN file USING (dataset, path)"
        " WHERE dataset = ? AND reason != '' ORDER BY id",
        (dataset,),
    )
    for row in rows:
        rejected.add(dataset, *row)


_CONTENTS = """
SELECT id, path, label, listed_at, notes, n_copies,
    row_number() OVER content = 1 AS is_first,
    first_value(path) OVER content AS first_path, first_value(label) OVER content AS first_label,
    min(label) OVER same_pixels != max(label) OVER same_pixels AS is_conflicting
FROM (
    SELECT *, CASE split WHEN 'test' THEN 0 WHEN 'val' THEN 1 WHEN 'train' THEN 2 ELSE 3 END AS turn
    FROM listed JOIN file USING (dataset, path) WHERE dataset = :dataset AND reason = ''
) JOIN (
    SELECT sha256, count(*) AS n_copies FROM file WHERE dataset = :dataset AND reason = '' GROUP BY sha256
) USING (sha256)
WINDOW
    same_pixels AS (PARTITION BY pixels_sha256),
    content AS (same_pixels ORDER BY turn, path, listed_at, id)
ORDER BY turn, path, listed_at, id
"""


def one_of_each(
    dataset: str, settings: UseSettings, database: sqlite3.Connection, rejected: Listing, noted: Listing
) -> int:
    """Keep one `image` for each content of a release; list the others. Gives how many are kept.

    A file that occurs under more than `max_copies` names is a placeholder ("image removed"). Files of equal
    pixels with one label count once, the test split's before others. With different labels none counts, or
    the first with `on_conflict="first"`. They are kept in that order, then in that of the paths.
    """
    n_kept = 0
    for row in database.execute(_CONTENTS, {"dataset": dataset}):
        listed, path, label, where, notes, n_copies, is_first, first_path, first_label, is_conflicting = row
        if n_copies > settings.max_copies:
            reason, message = "placeholder", f"the same file under {n_copies} names"
        elif is_conflicting and settings.on_conflict == "drop":
            reason, message = "conflicting_labels", f"its pixels occur with another label than {label}"
        elif not is_first:
            reason, message = "duplicate", f"the same pixels as {first_path}, {first_label}"
        else:
            n_kept += 1
            database.execute(_KEEP, (listed,))
            for about in json.loads(notes):
                noted.add(dataset, where, *about)
            continue
        rejected.add(dataset, where, reason, f"{path}: {message}")
    return n_kept


_KEEP = """
INSERT INTO image (dataset, path, label, split, listed_at, sha256, pixels_sha256)
SELECT dataset, path, label, split, listed_at, sha256, pixels_sha256
FROM listed JOIN file USING (dataset, path) WHERE id = ?
"""
