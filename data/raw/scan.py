"""Reads, decodes and hashes every image of the raw releases once.

The results are kept in a database, so that an interrupted scan goes on and a second build with
other settings does not decode again. A file that lies elsewhere, or changed in size or time, is read anew.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from emocaliber.images import MAX_ASPECT_RATIO, ImageFacts, ImageFault, inspect_image
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


BLOCK = 2048
Task = tuple[str, str, int, int]
"""A file to look into: name, path, size in bytes, time of its last change in ns."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the scan found in a file: two sums, or the reason why there are none.

    notes: what is unusual about an image that can be used, as (reason, message): see `notes_on`.
    """

    sha256: bytes = b""
    pixels_sha256: bytes = b""
    reason: str = ""
    message: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def scan(
    files: Iterable[tuple[str, Path]], n_files: int, kept: sqlite3.Connection, workers: int
) -> Iterator[tuple[str, Scanned]]:
    """Look into every file, given as (name to keep it under, path), and yield (name, what it holds) in order.

    Those that are `kept` are not read again; what is found in the others is committed there one by one.
    Raises RecordError if a worker dies, which loses nothing of that.
    """
    from tqdm import tqdm

    remaining = iter(files)
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=n_files, desc="images", unit="image", file=sys.stderr))
        pool = None
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, initializer=end_with_parent))
        try:
            while block := list(islice(remaining, BLOCK)):
                known = [_known(kept, name, path) for name, path in block]
                to_do = [task for task in known if not isinstance(task, Scanned)]
                looked = pool.map(look_into, to_do, chunksize=16) if pool else map(look_into, to_do)
                for (name, _), found in zip(block, known, strict=True):
                    if not isinstance(found, Scanned):
                        task, found = found, next(looked)
                        _keep(kept, task, found)
                    yield name, found
                    bar.update()
        except BrokenProcessPool:
            raise RecordError(
                "a worker of the scan was killed, perhaps for memory; run it again with fewer --workers, "
                "it goes on where it stopped"
            ) from None
        except BaseException:
            if pool:
                pool.shutdown(cancel_futures=True)
            raise


def _known(kept: sqlite3.Connection, name: str, path: Path) -> Scanned | Task:
    """Give what is known of a file as it is now, or the task to look into it."""
    try:
        state = path.stat()
    except (OSError, ValueError) as error:  # ValueError: half a surrogate pair
        reason = getattr(error, "strerror", None) or str(error)
        return Scanned(reason="image_missing", message=f"{name}: {reason}")
    row = kept.execute(
        "SELECT sha256, pixels_sha256, reason, message, notes FROM scan"
        " WHERE name = CAST(? AS TEXT) AND place = CAST(? AS TEXT) AND size = ? AND mtime_ns = ?",
        (storable(name), _place(path), state.st_size, state.st_mtime_ns),
    ).fetchone()
    if row is None:
        return name, str(path), state.st_size, state.st_mtime_ns
    *found, notes = row
    return Scanned(*found, tuple((reason, message) for reason, message in json.loads(notes)))


def _keep(kept: sqlite3.Connection, task: Task, found: Scanned) -> None:
    if found.reason == "image_missing":  # permission or a network disk: it may be there next time
        return
    name, path, size, mtime_ns = task
    sums = (found.sha256, found.pixels_sha256)
    about = (found.reason, storable(found.message), json.dumps(found.notes))
    kept.execute(
        "INSERT OR REPLACE INTO scan VALUES"
        " (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
        (storable(name), _place(path), size, mtime_ns, *sums, *about),
    )
    kept.commit()


def _place(path: str | Path) -> bytes:
    return storable(os.path.abspath(path))


def end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def look_into(task: Task) -> Scanned:
    """Read, decode and hash one file."""

    name, path, *_ = task
    try:
        facts = inspect_image(path)
    except ImageFault as fault:
        # The name in the release, not the path on this machine: the same release gives the same list.
        return Scanned(reason=fault.reason, message=fault.message.replace(path, name))
    if max(facts.width, facts.height) > MAX_ASPECT_RATIO * min(facts.width, facts.height):
        message = f"{name}: {facts.width} x {facts.height} pixels; sides of at most 1 to {MAX_ASPECT_RATIO}"
        return Scanned(reason="image_too_narrow", message=message)
    assert facts.pixels_sha256 is not None  # they were decoded
    sums = bytes.fromhex(facts.sha256), bytes.fromhex(facts.pixels_sha256)
    return Scanned(*sums, notes=notes_on(name, facts))


def notes_on(name: str, facts: ImageFacts) -> tuple[tuple[str, str], ...]:
    """Say what may surprise in an image that can be used."""
    notes = []
    if facts.wrong_extension:
        notes.append(("wrong_extension", f"{name}: its content is {facts.format}"))
    if facts.mode == "CMYK":
        notes.append(("cmyk", f"{name}: read as RGB without its colour profile"))
    if facts.exif_rotated:
        notes.append(("exif_rotated", f"{name}: shown upright, {facts.width} x {facts.height} pixels"))
    if facts.n_frames > 1:
        notes.append(("animated", f"{name}: the first of {facts.n_frames} frames is shown"))
    return tuple(notes)
