"""Looks at many image files in several processes, and remembers what each holds: none is read twice."""

import argparse
import fcntl
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import PIL
from tqdm import tqdm

from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import JsonlAppender, RecordError

Facts = dict[str, Any]
"""What `look` says of a file, as JSON values, beside `file`, `size_bytes`, `mtime_ns` and `ctime_ns`."""
Look = Callable[[str], Facts]
Kept = TypeVar("Kept")

_AT_ONCE = 16  # files that a worker takes; fewer than that are not worth a second process
_BLOCK = 1024


def decoded(path: str) -> Facts:
    """Give the fields of `emocaliber.images.ImageFacts`, the file decoded to its last pixel."""
    return asdict(inspect_image(path))


class ImageMemory:
    """A file of JSON lines with what image files held when they had that size and those times.

    It grows by one line a file, so that an interrupted scan goes on where it stopped. A file that lies
    elsewhere, or that has another size, time of modification or time of change (`ctime`, which no program
    can set back), is looked at again. So are all files under another version of Pillow.
    A fault is remembered too, except for `image_missing`: the file may be there next time.
    """

    def __init__(self, path: Path, method: str = "decoded") -> None:
        """`method` names what `look` does: lines with another one are not used.

        Raises RecordError for a file that another process uses, or that is no such memory.
        """
        self._path, self._method = path, f"{method}; Pillow {PIL.__version__}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._lines = stack.enter_context(open(path, "a+b"))
            try:
                fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecordError(
                    f"{path}: another command uses this file; wait for its end, or give another --output-dir"
                ) from None
            self._appender = stack.enter_context(JsonlAppender(path))  # mends a last line that was cut off
            self._lines.seek(0)
            # By hash: the names of a million files would fill the memory.
            self._place_of: dict[int, int] = {}
            place = 0
            for line in self._lines:
                self._place_of[hash(str(self._row(line).get("file")))] = place
                place += len(line)
            self._stack = stack.pop_all()

    def _row(self, line: bytes) -> Facts:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RecordError(f"{self._path}: not made by this command; remove it, and images are read anew")
        return row

    def scan(
        self, files: Iterable[str], n_files: int, look: Look = decoded, *, workers: int
    ) -> Iterator[tuple[str, Facts | ImageFault]]:
        """Yield every file in turn with its facts, remembered or new, or with why it cannot be used.

        Args:
            files: absolute paths; one that is named twice may be looked at twice.
            n_files: how many, for the progress bar.
            look: a function of a module; raises ImageFault.
            workers: processes, 1 for none beside this one.
        Returns:
            Facts of a file that has changed since it was last seen hold under `before` what it was then.
        Raises:
            RecordError: a worker was killed. What was found until then is remembered.
            MemoryError: from `look`.
        """
        remaining = iter(files)
        with ExitStack() as stack:
            bar = tqdm(total=n_files, desc="images", unit="image", mininterval=1.0, file=sys.stderr)
            stack.enter_context(bar)
            pool = None
            try:
                while block := list(islice(remaining, _BLOCK)):
                    known = [self._known(file) for file in block]
                    to_do = [
                        file for file, (is_current, _) in zip(block, known, strict=True) if not is_current
                    ]
                    if pool is None and workers > 1 and len(to_do) > _AT_ONCE:
                        # Not by fork: the parent may have threads.
                        context = multiprocessing.get_context("spawn")
                        pool = stack.enter_context(
                            ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
                        )
                    task = partial(_look_at, look)
                    looked = pool.map(task, to_do, chunksize=_AT_ONCE) if pool else map(task, to_do)
                    for file, (is_current, row) in zip(block, known, strict=True):
                        yield file, _found(row if is_current else self._remember(next(looked), row))
                        bar.update()
            except BrokenProcessPool:
                raise RecordError(
                    "a worker was killed, perhaps for memory; run it again with fewer --workers, it goes on "
                    "where it stopped"
                ) from None
            except BaseException:
                if pool:
                    pool.shutdown(cancel_futures=True)
                raise

    def gather(
        self, files: Iterable[str], look: Look, keep: Callable[[Facts], Kept], *, workers: int
    ) -> tuple[dict[str, Kept], dict[str, ImageFault]]:
        """Scan distinct files: what to keep of the facts of each, and the fault of each that has one."""
        distinct = list(dict.fromkeys(files))
        kept: dict[str, Kept] = {}
        faults: dict[str, ImageFault] = {}
        for file, found in self.scan(distinct, len(distinct), look, workers=workers):
            if isinstance(found, ImageFault):
                faults[file] = found
            else:
                kept[file] = keep(found)
        return kept, faults

    def _known(self, file: str) -> tuple[bool, Facts]:
        """Give what is remembered of a file, and whether that is true of it as it is now."""
        place = self._place_of.get(hash(file))
        if place is None:
            return False, {}
        self._lines.seek(place)
        row = self._row(self._lines.readline())
        if row.get("file") != file:
            return False, {}
        try:
            is_current = (_stamp(file) | {"method": self._method}).items() <= row.items()
        except (OSError, ValueError):
            is_current = False
        return is_current, row

    def _remember(self, row: Facts, before: Facts) -> Facts:
        if row.get("reason") != "image_missing":
            self._appender.write({**row, "method": self._method})
        return {**row, "before": before} if before else row

    def __enter__(self) -> "ImageMemory":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _found(row: Facts) -> Facts | ImageFault:
    return ImageFault(row["reason"], row["message"]) if "reason" in row else row


def _look_at(look: Look, file: str) -> Facts:
    """Give the line of a file, which holds its facts, or the reason and message of its fault."""
    row: Facts = {"file": file}
    try:
        row |= _stamp(file)
        return {**row, **look(file)}
    except ImageFault as fault:
        return {**row, "reason": fault.reason, "message": fault.message}
    except (OSError, ValueError) as error:  # ValueError: half a surrogate pair
        said = getattr(error, "strerror", None) or error
        return {**row, "reason": "image_missing", "message": f"{file}: {said}"}


def _stamp(file: str) -> dict[str, int]:
    state = os.stat(file)
    return {"size_bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}


def end_with_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end when it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _n_workers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


WORKERS: dict[str, Any] = {
    "type": _n_workers,
    "default": len(os.sched_getaffinity(0)),
    "metavar": "N",
    "help": "processes that decode (default: %(default)s, the cores)",
}
"""The option of a command that scans, for `add_argument("--workers", **WORKERS)`."""

CAN_GO_ON = {
    "if_interrupted": "the same command goes on where this one stopped",
    "if_no_memory": "give fewer --workers, or free memory",
}
"""How such a command ends early, for `run_command`."""
