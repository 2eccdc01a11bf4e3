"""The rows of a VEC-CoT build: records with the hash of their image's pixels; the others are listed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from data.vec_cot.rl_rows import as_chat
from emocaliber.image_scan import ImageMemory, decoded
from emocaliber.jsonl import read_jsonl
from emocaliber.records import Unusable

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
                    raise Unusable("several_images", f"{len(chat['images'])} images; a chain is about one")
                _check_unicode(chat)
            except Unusable as error:
                rejected.append(
                    rejection(where, record.get("id"), record.get("task"), error.reason, str(error))
                )
                continue
            labels = tuple(chat["candidates"])
            truth = {name: record[name] for name in TRUTHS if record.get(name)}
            asked = (chat["task"], chat["ground_truth"], label_sets.setdefault(labels, labels))
            rows.append(Row(where, chat["id"], *asked, chat["images"][0], truth))
    return rows


def _check_unicode(chat: Mapping[str, Any]) -> None:
    """Raise Unusable for a text that neither a request nor Parquet can hold, before anybody is asked."""
    for name, value in chat.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Unusable("not_unicode", f"{name}: {ascii(value)[:80]} is not Unicode text") from None


def with_pixels(
    rows: Sequence[Row], root: Path, known_images: Path, workers: int, rejected: list[dict[str, Any]]
) -> list[Row]:
    """Decode every image once and give the rows whose image is sound; put the others into `rejected`.

    `known_images` remembers what was decoded, so that a build that goes on decodes new images only.
    Raises MemoryError, as `inspect_image` does.
    """
    root = root.resolve()
    with ImageMemory(known_images) as memory:
        files = (str(root / row.image) for row in rows)
        pixels, faults = memory.gather(files, decoded, lambda facts: facts["pixels_sha256"], workers=workers)
    sound = []
    for row in rows:
        fault = faults.get(file := str(root / row.image))
        if fault is not None:
            rejected.append(rejection(row.where, row.id, row.task, fault.reason, fault.message))
        else:
            row.pixels = pixels[file]
            sound.append(row)
    return sound


STAGES = ("stage1", "stage2", "stage3")


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
