"""The rows of a VEC-CoT build: records with the hash of their image's pixels; the others are listed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from data.vec_cot.rl_rows import Rejected, as_chat
from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import JsonlAppender, RecordError, read_jsonl

TRUTHS = ("posterior", "votes")


@dataclass(slots=True)
class Row:
    """One image with its task and label. `where` is FILE:LINE, `image` relative to the image root.

    `pixels`: SHA-256 of the decoded pixels, so that two files of the same picture are one image.
    `truth`: the record's `posterior` or `votes`, if it has them.
    """

    where: str
    id: str
    task: str
    label: str
    candidates: tuple[str, ...]
    image: str
    truth: dict[str, Any] = field(default_factory=dict)
    pixels: str = ""
    stage: str = ""


def rejection(where: str, identity: Any, task: Any, reason: str, message: str) -> dict[str, Any]:
    """One line of rejected.jsonl."""
    return {"where": where, "id": identity, "task": task, "reason": reason, "message": message}


def read_rows(paths: Sequence[Path], rejected: list[dict[str, Any]]) -> list[Row]:
    """Read the records that can be asked about; put the others into `rejected`.

    Raises RecordError for a file that cannot be read, or that is not made of JSON lines.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    label_sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows share the few there are
    for path in paths:
        for number, record in read_jsonl(path):
            where = f"{path}:{number}"
            try:
                chat = as_chat(record, seen)
                if len(chat["images"]) != 1:
                    raise Rejected("several_images", f"{len(chat['images'])} images; a chain is about one")
                _check_unicode(chat)
            except Rejected as error:
                rejected.append(
                    rejection(where, record.get("id"), record.get("task"), error.reason, str(error))
                )
                continue
            labels = tuple(chat["candidates"])
            truth = {name: record[name] for name in TRUTHS if record.get(name)}
            rows.append(
                Row(
                    where,
                    chat["id"],
                    chat["task"],
                    chat["ground_truth"],
                    label_sets.setdefault(labels, labels),
                    chat["images"][0],
                    truth,
                )
            )
    return rows


def _check_unicode(chat: Mapping[str, Any]) -> None:
    """Raise Rejected for a text that neither a request nor Parquet can hold, before anybody is asked."""
    for name, value in chat.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Rejected("not_unicode", f"{name}: {ascii(value)[:80]} is not Unicode text") from None


def with_pixels(
    rows: Sequence[Row], root: Path, known_images: Path, threads: int, rejected: list[dict[str, Any]]
) -> list[Row]:
    """Decode every image once and give the rows whose image is sound; put the others into `rejected`.

    `known_images`: file that remembers what was decoded, by root, path, size and times of change, so that a
    build that goes on decodes new images only. Raises MemoryError, as `inspect_image` does.
    """
    from tqdm import tqdm

    known = _read_known(known_images)
    pixels: dict[str, str] = {}
    faults: dict[str, ImageFault] = {}
    images = list(dict.fromkeys(row.image for row in rows))
    with JsonlAppender(known_images) as appender, ThreadPoolExecutor(threads) as pool:
        looked_at = _ahead(pool, images, root, known, 4 * threads)
        progress = tqdm(looked_at, "images", len(images), unit="image", mininterval=1.0, file=sys.stderr)
        for image, future in progress:
            try:
                found = future.result()
            except ImageFault as error:
                faults[image] = error
                continue
            pixels[image] = found["pixels_sha256"]
            if known.get(image) != found:
                appender.write({"image": image} | found)
    sound = []
    for row in rows:
        if row.image in faults:
            fault = faults[row.image]
            rejected.append(rejection(row.where, row.id, row.task, fault.reason, fault.message))
        else:
            row.pixels = pixels[row.image]
            sound.append(row)
    return sound


def _read_known(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    with JsonlAppender(path):
        pass  # repairs a last line that was cut off
    try:
        return {row.pop("image"): row for _, row in read_jsonl(path)}
    except KeyError:
        raise RecordError(f"{path}: a line without `image`; remove the file") from None


def _ahead(
    pool: ThreadPoolExecutor, images: Iterable[str], root: Path, known: dict[str, Any], ahead: int
) -> Iterator[tuple[str, Future[dict[str, Any]]]]:
    """Yield the images in order, the next ones being decoded meanwhile."""
    waiting: list[tuple[str, Future[dict[str, Any]]]] = []
    left, root = iter(images), root.resolve()
    while True:
        for image in islice(left, ahead - len(waiting)):
            waiting.append((image, pool.submit(_look_at, root, image, known.get(image))))
        if not waiting:
            return
        yield waiting.pop(0)


def _look_at(root: Path, image: str, known: dict[str, Any] | None) -> dict[str, Any]:
    """Root, size, times of change and pixel hash of a file. Raises ImageFault."""
    path = root / image
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return {"pixels_sha256": inspect_image(path).pixels_sha256}  # says what is wrong with it
    # The time of modification is kept by whoever copies or unpacks another file of that name; ctime is not.
    times = {"changed_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    facts: dict[str, Any] = {"root": str(root), "bytes": found.st_size, **times}
    if known is not None and facts.items() <= known.items():
        return known
    return facts | {"pixels_sha256": inspect_image(path).pixels_sha256}


STAGES = ("stage1", "stage2", "stage3")
SHARES = (0.6, 0.3, 0.1)


def assign_stages(rows: Sequence[Row], shares: Sequence[float], seed: int) -> None:
    """Set `stage` of every row; all rows of one image, told by its pixels, get the same.

    The stratum of an image is what its rows say together, such as (FI-2 positive, FI-8 awe). Its images, in
    an order drawn by the seed, are sampled systematically with a random start: each stage gets its share of
    the stratum's n images to within one, and its share in expectation however small n is.
    `shares` are of the images and sum to 1.
    """
    says: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        says[row.pixels].add((row.task, row.label))
    strata: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for pixels, rows_say in says.items():
        strata[tuple(sorted(rows_say))].append(pixels)
    bounds = list(accumulate(shares))[:-1]
    stage_of: dict[str, str] = {}
    for stratum, images in strata.items():
        images.sort(key=lambda pixels: _draw(seed, pixels))
        start = _draw(seed, repr(stratum))
        for position, pixels in enumerate(images):
            point = (position + start) / len(images)
            stage_of[pixels] = STAGES[sum(point >= bound for bound in bounds)]
    for row in rows:
        row.stage = stage_of[row.pixels]


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that hangs on the seed and the name only."""
    digest = hashlib.sha256(f"VEC-CoT/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
