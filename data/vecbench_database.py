"""The two SQLite databases of a build: the scan, kept for later builds, and the tables of one build.

The latter is on disk as well (in TMPDIR) and vanishes with the process however it ends, so that a build takes
as much memory for half a million images as for a thousand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from emocaliber.jsonl import RecordError

_OPEN_SCAN = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
-- Commits do not wait for the disk: a killed process loses none, a power cut the last ones at most.
PRAGMA synchronous = NORMAL;
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS scan (  -- what a file held when it had that size and time
    name TEXT PRIMARY KEY, place TEXT, size INTEGER, mtime_ns INTEGER,
    sha256 BLOB, pixels_sha256 BLOB, reason TEXT, message TEXT, notes TEXT
) WITHOUT ROWID;
COMMIT;
"""
# In a database of its own: beside a query that is open, the log of the scan's could not be emptied.
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
def open_scan(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file of the scan, for this process alone, and close it in the end.

    Raises RecordError if another process has it open, and for what SQLite refuses meanwhile.
    """
    try:
        with closing(sqlite3.connect(path, timeout=0)) as database:
            database.text_factory = _text
            database.executescript(_OPEN_SCAN)
            yield database
    except sqlite3.Error as error:
        if str(error) == "database is locked":
            reason = "another build uses this folder; wait for its end, or give another --output-dir"
        else:
            reason = f"{error}; make room on the disk, or remove the file to scan anew"
        raise RecordError(f"{path}: {reason}") from None


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
