"""What the files of a release hold, each looked at once, and the database that a build works in."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

from emocaliber.image_scan import Facts, ImageMemory
from emocaliber.images import MAX_ASPECT_RATIO, ImageFault

SCAN = "scan.jsonl"
"""The memory of the scan in the output folder of a build."""

BUILD_TABLES = """
CREATE TABLE listed (  -- labelled images in the order in which the releases list them
    id INTEGER PRIMARY KEY, dataset TEXT, path TEXT, label TEXT, split TEXT, listed_at TEXT
);
CREATE TABLE file (  -- each file of those, and what it holds: no reason means that it can be used
    dataset TEXT, path TEXT, sha256 BLOB, pixels_sha256 BLOB, reason TEXT, message TEXT, notes TEXT,
    PRIMARY KEY (dataset, path)
) WITHOUT ROWID;
CREATE TABLE image (  -- one image of each content, data set by data set
    id INTEGER PRIMARY KEY, dataset TEXT, path TEXT, label TEXT, split TEXT, listed_at TEXT,
    sha256 BLOB, pixels_sha256 BLOB
);
CREATE TABLE drawn (  -- images of the tasks, with their labels there and their places in the draw
    task TEXT, split TEXT, label TEXT, place BLOB, image INTEGER
);
CREATE VIEW in_test AS SELECT * FROM image WHERE id IN (SELECT image FROM drawn WHERE split = 'test');
"""


@contextmanager
def temporary_database(tables: str) -> Iterator[sqlite3.Connection]:
    """Open a database of these empty tables that is on disk for as long as it is open."""
    with closing(sqlite3.connect("")) as database:  # this name says so
        database.text_factory = _text
        database.executescript("PRAGMA temp_store = FILE;" + tables)
        yield database


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def storable(text: str) -> bytes:
    """Give a text that may hold bytes of a file name that are no UTF-8; store it by CAST(? AS TEXT).

    The order of what is stored is that of the texts.
    """
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a file holds: two sums, or the reason why it cannot be used.

    notes: what is unusual about an image that can be used, as (reason, message): see `notes_on`.
    """

    sha256: bytes = b""
    pixels_sha256: bytes = b""
    reason: str = ""
    message: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def scan(
    files: Iterable[tuple[str, Path]], n_files: int, memory: ImageMemory, workers: int
) -> Iterator[tuple[str, Scanned]]:
    """Look into every file, given as (name in its release, path), and yield (name, what it holds) in order.

    Raises RecordError if a worker dies; what was found until then is remembered.
    """
    named, again = tee(files)
    paths = (os.path.abspath(path) for _, path in again)
    for (name, _), (path, found) in zip(named, memory.scan(paths, n_files, workers=workers), strict=True):
        yield name, _as_scanned(name, path, found)


def _as_scanned(name: str, path: str, found: Facts | ImageFault) -> Scanned:
    # Named as in the release, not by the path on this machine: the same release gives the same list.
    if isinstance(found, ImageFault):
        return Scanned(reason=found.reason, message=found.message.replace(path, name))
    width, height = found["width"], found["height"]
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        message = f"{name}: {width} x {height} pixels; sides of at most 1 to {MAX_ASPECT_RATIO}"
        return Scanned(reason="image_too_narrow", message=message)
    sha256, pixels_sha256 = (bytes.fromhex(found[sum_]) for sum_ in ("sha256", "pixels_sha256"))
    return Scanned(sha256, pixels_sha256, notes=notes_on(name, found))


def notes_on(name: str, facts: Facts) -> tuple[tuple[str, str], ...]:
    """Say what may surprise in an image that can be used."""
    notes = []
    if facts["wrong_extension"]:
        notes.append(("wrong_extension", f"{name}: its content is {facts['format']}"))
    if facts["mode"] == "CMYK":
        notes.append(("cmyk", f"{name}: read as RGB without its colour profile"))
    if facts["exif_rotated"]:
        notes.append(("exif_rotated", f"{name}: shown upright, {facts['width']} x {facts['height']} pixels"))
    if facts["n_frames"] > 1:
        notes.append(("animated", f"{name}: the first of {facts['n_frames']} frames is shown"))
    return tuple(notes)
