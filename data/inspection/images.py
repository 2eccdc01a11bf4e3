"""Looks at many image files in several processes, and keeps what was seen, so that no file is read twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from data.raw.scan import end_with_parent
from emocaliber.images import ImageFault
from emocaliber.jsonl import JsonlAppender, RecordError, read_jsonl

Facts = dict[str, Any]
Kept = TypeVar("Kept")
_FILES_AT_ONCE = 16


def scan_images(
    files: Sequence[str],
    look: Callable[[str], Facts],
    keep: Callable[[Facts], Kept],
    *,
    seen: Path,
    method: str,
    workers: int,
) -> tuple[dict[str, Kept], dict[str, tuple[str, str]]]:
    """Apply `look` to every file, or take what `seen` has of it.

    Args:
        files: absolute paths, all different.
        look: a function of a module, facts of a file as JSON values; raises ImageFault.
        keep: what to hold in memory of the facts.
        seen: grows by one line a file, so that an interrupted run goes on where it stopped. A file with
            another size or time of change than noted there is looked at again.
        method: lines of `seen` with another method are not used.
        workers: processes, 1 for none beside this one.
    Returns:
        What was kept per file, and (reason, message) per file that could not be read.
    """
    from tqdm import tqdm

    known = dict(_known(files, keep, seen, method))
    faults: dict[str, tuple[str, str]] = {}
    waiting = [file for file in files if file not in known]
    if not waiting:
        return known, faults
    with (
        JsonlAppender(seen) as appender,
        closing(_looked_at(waiting, partial(_look, look), workers)) as results,
        tqdm(results, total=len(files), initial=len(known), desc="images", unit="image") as progress,
    ):
        for file, facts, fault in progress:
            if fault is not None:
                faults[file] = fault
            else:
                known[file] = keep(facts)
                appender.write({**facts, "method": method})
    return known, faults


def _known(
    files: Sequence[str], keep: Callable[[Facts], Kept], seen: Path, method: str
) -> Iterator[tuple[str, Kept]]:
    if not seen.exists():
        return
    JsonlAppender(seen).close()  # mends a last line that was cut off
    wanted = set(files)
    for number, facts in read_jsonl(seen):
        file = facts.get("file")
        if facts.get("method") != method or file not in wanted:
            continue
        try:
            if _identity(str(file)) == (facts["size_bytes"], facts["mtime_ns"]):
                yield str(file), keep(facts)
        except OSError:
            continue  # gone since: it is looked at again and counted then
        except (KeyError, ValueError, TypeError):
            raise RecordError(f"{seen}:{number}: not written by this command; remove the file") from None


def _looked_at(
    files: Sequence[str], look: Callable[[str], Any], workers: int
) -> Iterator[tuple[str, Facts, tuple[str, str] | None]]:
    if workers == 1 or len(files) <= _FILES_AT_ONCE:
        yield from map(look, files)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Not by fork: the parent may have threads.
    context, remaining = multiprocessing.get_context("spawn"), iter(files)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        try:
            while block := list(islice(remaining, _FILES_AT_ONCE * workers * 4)):
                yield from pool.map(look, block, chunksize=_FILES_AT_ONCE)
        except BrokenProcessPool:
            raise RecordError(
                "a worker was killed, perhaps for memory; run it again with fewer --workers, "
                "it goes on where it stopped"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _look(look: Callable[[str], Facts], file: str) -> tuple[str, Facts, tuple[str, str] | None]:

    try:
        size, mtime = _identity(file)
        return file, {"file": file, "size_bytes": size, "mtime_ns": mtime, **look(file)}, None
    except ImageFault as fault:
        return file, {}, (fault.reason, fault.message)
    except (OSError, ValueError) as error:
        return file, {}, ("image_missing", f"{file}: {getattr(error, 'strerror', None) or error}")


def _identity(file: str) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def distinct_files(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Every file once, in the order of the rows."""
    return list(dict.fromkeys(file for files in rows for file in files))
