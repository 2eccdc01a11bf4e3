"""The rows of any file of JSON lines that names images: records, chats for training, predictions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emocaliber.image_scan import WORKERS
from emocaliber.jsonl import RecordError, read_jsonl
from emocaliber.records import most_probable, record_images, soft_truth
from emocaliber.taxonomy import canonical_task, match_label

NO_TASK, NO_LABEL = "(no task)", "(no label)"
_SUFFIXES = (".gz", ".jsonl", ".json")
_NAMED = re.compile(r"([\w. -]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A file and the split that its rows belong to; several files can make up one split."""

    split: str
    path: Path
    image_root: Path


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `images` are its paths as written, `files` the same below the image root of its file."""

    where: str
    id: str | None
    split: str
    task: str
    label: str
    images: tuple[str, ...]
    files: tuple[str, ...]


def add_sources(add: Callable[..., Any]) -> None:
    """Add what every command on such files is told: `add` is the `add_argument` of its parser."""
    add("files", nargs="+", metavar="[NAME=]FILE", help="JSON lines, records or chats; a name is a split")
    add("--output-dir", type=Path, required=True, metavar="DIR")
    add("--image-root", type=Path, metavar="DIR", help="of image paths (default: each file's folder)")
    add("--workers", **WORKERS)


def sources_of(arguments: Sequence[str], image_root: Path | None) -> list[Source]:
    """Read NAME=FILE or FILE, whose stem is the name then. Raises RecordError for a file given twice."""
    sources: list[Source] = []
    seen: set[str] = set()
    for argument in arguments:
        named = None if os.path.exists(argument) else _NAMED.fullmatch(argument)
        path = Path(named[2] if named else argument)
        name = named[1] if named else path.name
        for suffix in _SUFFIXES if not named else ():
            name = name.removesuffix(suffix)
        if (place := os.path.realpath(path)) in seen:
            raise RecordError(f"{path}: given twice; give every file once")
        seen.add(place)
        sources.append(Source(name, path, image_root or path.parent))
    return sources


def iterate_rows(
    sources: Sequence[Source], rejected: list[dict[str, Any]]
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Yield each row with the object it was read from; put those that name no image into `rejected`.

    Raises RecordError for a file that cannot be read, for a line that is no JSON object and for no rows.
    """
    for source in sources:
        is_empty = True
        for number, record in read_jsonl(source.path):
            is_empty = False
            where = f"{source.path}:{number}"
            try:
                images = tuple(record_images(record))
            except RecordError as error:
                identity = record.get("id")
                entry = {"where": where, "id": identity, "split": source.split}
                rejected.append(entry | {"reason": "no_image", "message": str(error)})
                continue
            root = os.path.abspath(source.image_root)
            files = tuple(os.path.normpath(os.path.join(root, image)) for image in images)
            identity = None if record.get("id") is None else str(record["id"])
            yield Row(where, identity, source.split, _task(record), _label(record), images, files), record
        if is_empty:
            raise RecordError(f"{source.path}: no rows; give a file with rows")


def _task(record: dict[str, Any]) -> str:
    task = record.get("task")
    return (canonical_task(task) or NO_TASK) if isinstance(task, str) else NO_TASK


def _label(record: dict[str, Any]) -> str:
    """The row's truth in the spelling of its candidates where it has some."""
    truth, candidates = record.get("ground_truth"), record.get("candidates")
    candidates = candidates if isinstance(candidates, list) else []
    candidates = [candidate for candidate in candidates if isinstance(candidate, str)]
    if isinstance(truth, str) and truth.strip():
        return match_label(truth, candidates) or truth.strip()
    try:
        distribution = soft_truth(record, tuple(candidates))
    except RecordError:
        return NO_LABEL
    return most_probable(distribution) if distribution else NO_LABEL
