"""Reads, decodes and hashes every image of the raw releases once.

The results are kept in an append-only file of JSON lines, so that an interrupted scan goes on and a second
build with other settings does not decode again. A file that changed in size or time is read anew.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.jsonl import JsonlAppender, PathLike, RecordError, read_jsonl

if TYPE_CHECKING:
    from emocaliber.images import ImageFacts

MAX_ASPECT_RATIO = 200
"""Qwen2-VL's image processor refuses longer sides than 200 to 1; such an image could not be asked about."""
BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the scan found in a file of that size and time: two sums, or the reason why there are none.

    notes: what is unusual about an image that can be used, as (reason, message): see `notes_on`.
    """

    size: int
    mtime_ns: int
    sha256: bytes = b""
    pixels_sha256: bytes = b""
    reason: str = ""
    message: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def scan(paths: Iterable[tuple[str, Path]], cache: Path, workers: int) -> dict[str, Scanned]:
    """Look into every file, given as (name to keep it under, path); those in the cache are not read again.

    Raises RecordError if a worker dies, which loses nothing of what the cache holds.
    """
    known = read_cache(cache)
    results: dict[str, Scanned] = {}
    to_do: list[tuple[str, str, int, int]] = []
    for name, path in paths:
        try:
            state = path.stat()
        except OSError as error:
            results[name] = Scanned(0, 0, reason="image_missing", message=f"{name}: {error.strerror}")
            continue
        found = known.pop(name, None)
        if found is not None and (found.size, found.mtime_ns) == (state.st_size, state.st_mtime_ns):
            results[name] = found
        else:
            to_do.append((name, str(path), state.st_size, state.st_mtime_ns))
    del known
    with JsonlAppender(cache) as rows:
        for name, found in _look_into(to_do, workers, len(results)):
            if found.reason != "image_missing":  # permission or a network disk: it may be there next time
                rows.write(_as_row(name, found))
            results[name] = found
    return results


def _look_into(
    to_do: list[tuple[str, str, int, int]], workers: int, n_known: int
) -> Iterator[tuple[str, Scanned]]:
    from tqdm import tqdm

    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=n_known + len(to_do), initial=n_known, desc="images", unit="image", file=sys.stderr)
        )
        pool = None
        if workers > 1 and to_do:
            pool = stack.enter_context(ProcessPoolExecutor(workers, initializer=end_with_parent))
        remaining = iter(to_do)
        try:
            while block := list(islice(remaining, BLOCK)):
                for result in pool.map(look_into, block, chunksize=16) if pool else map(look_into, block):
                    yield result
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


def end_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def look_into(task: tuple[str, str, int, int]) -> tuple[str, Scanned]:
    """Read, decode and hash one file, given as (name, path, size, time)."""
    from emocaliber.images import ImageFault, inspect_image

    name, path, size, mtime_ns = task
    try:
        facts = inspect_image(path)
    except ImageFault as fault:
        # The name in the release, not the path on this machine: the same release gives the same list.
        return name, Scanned(size, mtime_ns, reason=fault.reason, message=fault.message.replace(path, name))
    if max(facts.width, facts.height) > MAX_ASPECT_RATIO * min(facts.width, facts.height):
        message = f"{name}: {facts.width} x {facts.height} pixels; sides of at most 1 to {MAX_ASPECT_RATIO}"
        return name, Scanned(size, mtime_ns, reason="image_too_narrow", message=message)
    assert facts.pixels_sha256 is not None  # they were decoded
    sums = bytes.fromhex(facts.sha256), bytes.fromhex(facts.pixels_sha256)
    return name, Scanned(size, mtime_ns, *sums, notes=notes_on(name, facts))


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


def _as_row(name: str, found: Scanned) -> dict[str, Any]:
    row = {"file": name, "size": found.size, "mtime_ns": found.mtime_ns}
    if found.reason:
        return row | {"reason": found.reason, "message": found.message}
    row |= {"sha256": found.sha256.hex(), "pixels_sha256": found.pixels_sha256.hex()}
    return row | {"notes": dict(found.notes)} if found.notes else row


def read_cache(path: PathLike) -> dict[str, Scanned]:
    """Read what an earlier scan found, by name; a last line that was cut off is removed from the file."""
    if not os.path.exists(path):
        return {}
    JsonlAppender(path).close()  # mends the last line
    known = {}
    for number, row in read_jsonl(path):
        try:
            sums = (bytes.fromhex(row.get("sha256", "")), bytes.fromhex(row.get("pixels_sha256", "")))
            about = (row.get("reason", ""), row.get("message", ""))
            notes = tuple(dict(row.get("notes", {})).items())
            known[row["file"]] = Scanned(row["size"], row["mtime_ns"], *sums, *about, notes)
        except (KeyError, TypeError, ValueError):
            raise RecordError(f"{path}:{number}: not a row of a scan; remove the file to scan anew") from None
    return known
